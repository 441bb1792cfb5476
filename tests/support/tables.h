/* Walks the kernel tables: each check runs on every instruction set and type, and what it
 * records must have the same bits on all instruction sets. */
#ifndef SUPPORT_TABLES_H
#define SUPPORT_TABLES_H

#include "kernels/kernels.h"

typedef void (*table_check)(const sbni_kernels *k, sbn_dtype t);

void each_table(table_check check);

/* The same for the kernels of normalization, which also store bfloat16. */
typedef void (*norm_table_check)(const sbni_norm_kernels *k, sbn_dtype t);

void each_norm_table(norm_table_check check);

/* Note a kernel's output for the comparison. */
void record(const void *output, int64_t bytes);

/* Draws by counter: standard normal, rounded to the type. */
void draw(sbn_dtype t, void *array, int64_t n, uint32_t which);

/* Half the distance from 1 to the next number: the relative error of one rounding. */
double rounding(sbn_dtype t);

/* Room for n elements of the type, filled with a pattern;
 * room_check fails when something was written behind them, and frees. */
void *room(sbn_dtype t, int64_t n);
void room_check(sbn_dtype t, void *array, int64_t n);

#endif

/* Walks the kernel tables: each check runs on every instruction set and type, and what it
 * records must have the same bits on all instruction sets. */
#ifndef SUPPORT_TABLES_H
#define SUPPORT_TABLES_H

#include "kernels/kernels.h"

typedef void (*table_check)(const sbni_kernels *k, sbn_dtype t);

#define each_table(check) each_table_named(#check, (check))
void each_table_named(const char *walk, table_check check);

/* The same for the kernels of normalization, which also store bfloat16. */
typedef void (*norm_table_check)(const sbni_norm_kernels *k, sbn_dtype t);

#define each_norm_table(check) each_norm_table_named(#check, (check))
void each_norm_table_named(const char *walk, norm_table_check check);

/* And for those of words. */
typedef void (*words_table_check)(const sbni_words_kernels *k, sbn_dtype t);

#define each_words_table(check) each_words_table_named(#check, (check))
void each_words_table_named(const char *walk, words_table_check check);

/* Note a kernel's output for the comparison. Where SBN_TEST_DIGESTS names a file, digests
 * of what was noted are added to it, for comparison with other processors. */
void record(const void *output, int64_t bytes);

/* The same for what libm had a part in: alike on all instruction sets, left out of the
 * digests, as each processor has a libm of its own. */
void record_libm(const void *output, int64_t bytes);

/* In place of records, by a table that lacks the kernels: it is not compared. */
void record_nothing(void);

/* Draws by counter: standard normal, rounded to the type; the same on all processors. */
void draw(sbn_dtype t, void *array, int64_t n, uint32_t which);

/* n draws in memory of their own, no larger than they are: sanitizers see what is read
 * beyond. Free with free(). */
void *exactly(sbn_dtype t, int64_t n, uint32_t which);

/* Half the distance from 1 to the next number: the relative error of one rounding. */
double rounding(sbn_dtype t);

/* Of n elements. */
int64_t bytes_of(sbn_dtype t, int64_t n);

/* Rounded to the type. */
double as(sbn_dtype t, double v);

/* Room for n elements of the type, filled with a pattern;
 * room_check fails when something was written behind them, and frees. */
void *room(sbn_dtype t, int64_t n);
void room_check(sbn_dtype t, void *array, int64_t n);

#endif

/* A small model and optimizer with known contents, and files for their checkpoints. */
#ifndef SUPPORT_SAVED_H
#define SUPPORT_SAVED_H

#include <stdbool.h>
#include <stdint.h>

#include "train/checkpoint.h"

enum { SAVED_SETTINGS = 3, SAVED_ROOM = 1 << 16 };

extern const sbni_setting saved_settings[SAVED_SETTINGS];
extern sbn_model *saved_model;
extern sbn_optimizer *saved_optimizer;

/* Fixtures for the first and the last case. */
int saved_make(void **state);
int saved_destroy(void **state);

/* Everything that a checkpoint holds takes a value that goes with `mark`. */
void saved_set(double mark);

/* Whether it all has the values of that mark. */
bool saved_are(double mark);

/* A path in the test's folder; the last two stay valid. */
const char *saved_path(const char *name);

void saved_write(const char *path, const char *bytes, int64_t n);

/* Returns how many bytes there are, below SAVED_ROOM. */
int64_t saved_read(const char *path, char *bytes);

#endif

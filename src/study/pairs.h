/* Settings as text: options of a training run, each with its value. */
#ifndef SBNI_PAIRS_H
#define SBNI_PAIRS_H

#include <stdbool.h>

#include "core/status.h"
#include "options/train.h"

enum { SBNI_PAIR_NAME = 32, SBNI_PAIR_VALUE = 256, SBNI_PAIRS = 48 };

typedef struct sbni_pair {
    char option[SBNI_PAIR_NAME]; /* without the dashes */
    char value[SBNI_PAIR_VALUE];
} sbni_pair;

/* Every option once, in the order of their first setting. */
typedef struct sbni_pairs {
    int n;
    sbni_pair at[SBNI_PAIRS];
} sbni_pairs;

/* Set an option, in the place of an earlier value. epochs and steps stand for each other.
 * SBN_E_ARG where one is too long, or there are too many. */
sbn_status sbni_pairs_set(sbni_pairs *pairs, const char *option, const char *value);

/* Set what a text like "norm=batch norm-batch=4" says. SBN_E_ARG. */
sbn_status sbni_pairs_read(sbni_pairs *pairs, const char *text);

/* Set all of `from`. */
sbn_status sbni_pairs_add(sbni_pairs *pairs, const sbni_pairs *from);

/* The value of an option; NULL where it is not set. */
const char *sbni_pairs_get(const sbni_pairs *pairs, const char *option);

/* What the settings mean to the trainer; texts stay the pairs'. SBN_E_ARG naming the
 * option, as on the command line. */
sbn_status sbni_pairs_resolve(const sbni_pairs *pairs, sbni_train_settings *settings);

#endif

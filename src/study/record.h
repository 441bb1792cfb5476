/* What a finished trial found: named values, from its metrics.jsonl. */
#ifndef SBNI_RECORD_H
#define SBNI_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/status.h"

enum { SBNI_VALUE_NAME = 64, SBNI_VALUES = 160, SBNI_RECORD_STATUS = 16 };

typedef struct sbni_value {
    char name[SBNI_VALUE_NAME];
    double value;
} sbni_value;

/* status: "done", or "diverged" of a run whose loss or statistics did not stay finite. */
typedef struct sbni_record {
    char status[SBNI_RECORD_STATUS];
    double seconds;
    int n;
    sbni_value at[SBNI_VALUES];
} sbni_record;

/* Set a value, in the place of one of that name. Names beyond the last place are lost. */
void sbni_record_set(sbni_record *record, const char *name, double value);

/* Name of how many evaluations under a change were not finite: they count as guessing. */
#define SBNI_NOT_FINITE "evaluations_not_finite"

/* NaN where there is none. */
double sbni_record_get(const sbni_record *record, const char *name);

/**
 * Collect from a run's metrics:
 * test_error, test_loss, train_error, train_loss of the last evaluation,
 * error_at/STEP of the first `early` ones, gap (test_error
 * − train_error); precise_test_error … of the precise one; batch_loss, mean loss of the
 * steps of its last tenth; steps, epochs, reached, and steps_to_target of a run that
 * reached its target; mean_noise/LAYER and var_noise/LAYER, means over its records,
 * and mean_noise, var_noise, their means over the layers;
 * noise_scale, trace over grad_sq of the run's second half, each a mean before;
 * drift, how far percentiles move: mean of their deviations over the steps, relative to
 * the mean distance of the 15th from the 85th. Error rates in 0 … 1.
 * @errors SBN_E_IO, SBN_E_DATA, SBN_E_MEMORY
 */
sbn_status sbni_record_collect(const char *metrics, int early, sbni_record *record);

/* A run without a result: the error of guessing among classes. */
void sbni_record_diverged(int64_t classes, sbni_record *record);

/* A file of its own, replaced whole. Loading a missing file gives *found false. */
sbn_status sbni_record_save(const char *path, const sbni_record *record);
sbn_status sbni_record_load(const char *path, sbni_record *record, bool *found);

/* A field of all records of a kind, by step. Freed with sbni_series_free. */
typedef struct sbni_series {
    int n;
    double *step, *value;
} sbni_series;

sbn_status sbni_series_read(const char *metrics, const char *kind, const char *field,
                            sbni_series *series);
void sbni_series_free(sbni_series *series);

#endif

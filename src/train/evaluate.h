/* Evaluation of a model on a data set, shared out over the group. */
#ifndef SBNI_EVALUATE_H
#define SBNI_EVALUATE_H

#include "syncbn/data.h"
#include "syncbn/model.h"

/* Mean loss and correct count over samples [0, n) of a data set: an exact sum over
 * slices, so the same at any number of processes. The model's input buffer is
 * overwritten.
 * @collective one message of 72 bytes. */
sbn_status sbni_evaluate(sbn_model *model, const sbn_dataset *dataset, int64_t n,
                         sbn_group *group, sbn_model_result *result);

/* Replace the running statistics of every norm layer, in order, by the precise ones over
 * samples [0, n): the same at any number of processes. The input buffer is overwritten.
 * @collective per norm layer as sbn_norm_precise_end, and 8 bytes. */
sbn_status sbni_precise(sbn_model *model, const sbn_dataset *dataset, int64_t n,
                        sbn_group *group);

/* Fetch samples by index into rows of the model's input, by all threads; changed as they
 * are in an epoch, or (epoch -1) as they are. */
void sbni_fetch_augmented(const sbn_dataset *dataset, int64_t epoch, const int64_t *index,
                          int64_t n, float *x, int32_t *labels);
void sbni_fetch(const sbn_dataset *dataset, const int64_t *index, int64_t n, float *x,
                int32_t *labels);

/* One number that differs when any weight or buffer does. */
int64_t sbni_model_digest(const sbn_model *model);

/* Check that a data set suits a model: shape of the images, number of classes. SBN_E_ARG.
 */
sbn_status sbni_check_fit(const sbn_model *model, const sbn_dataset_info *info);

#endif

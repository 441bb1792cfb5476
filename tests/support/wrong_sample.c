/* Faults that no file of images can bring about. A training sample becomes NaN, or large,
 * as it is fetched: SBN_TEST_SAMPLE in the environment is its index, SBN_TEST_VALUE a
 * pixel's. Or on the last process gradient number SBN_TEST_STEP fails when all is done,
 * or, where SBN_TEST_WEIGHTS names a tensor, finds a NaN in it.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nn/layer.h"
#include "syncbn/data.h"

void __real_sbn_dataset_fetch_augmented(const sbn_dataset *dataset, int64_t epoch,
                                        const int64_t *index, int64_t n, float *x,
                                        int32_t *labels);
void __wrap_sbn_dataset_fetch_augmented(const sbn_dataset *dataset, int64_t epoch,
                                        const int64_t *index, int64_t n, float *x,
                                        int32_t *labels);

void __wrap_sbn_dataset_fetch_augmented(const sbn_dataset *dataset, int64_t epoch,
                                        const int64_t *index, int64_t n, float *x,
                                        int32_t *labels)
{
    const char *sample = getenv("SBN_TEST_SAMPLE"), *value = getenv("SBN_TEST_VALUE");
    sbn_dataset_info info = sbn_dataset_get_info(dataset);
    __real_sbn_dataset_fetch_augmented(dataset, epoch, index, n, x, labels);
    for (int64_t i = 0; sample && epoch >= 0 && i < n; i++)
        if (index[i] == atoll(sample))
            x[i * info.c * info.h * info.w + 300] = strtof(value ? value : "nan", NULL);
}

sbn_status __real_sbn_model_gradient(sbn_model *model, const int32_t *labels,
                                     int64_t total, sbn_model_result *result);
sbn_status __wrap_sbn_model_gradient(sbn_model *model, const int32_t *labels,
                                     int64_t total, sbn_model_result *result);

sbn_status __wrap_sbn_model_gradient(sbn_model *model, const int32_t *labels,
                                     int64_t total, sbn_model_result *result)
{
    static int64_t calls;
    const char *step = getenv("SBN_TEST_STEP"), *weights = getenv("SBN_TEST_WEIGHTS");
    bool now = step && ++calls == atoll(step),
         last = sbn_group_rank(model->group) == sbn_group_size(model->group) - 1;
    int n;
    const sbn_model_tensor *tensors = sbn_model_tensors(model, &n);
    for (int i = 0; now && last && weights && i < n; i++)
        if (!strcmp(tensors[i].name, weights)) ((float *)tensors[i].data)[0] = NAN;
    sbn_status status = __real_sbn_model_gradient(model, labels, total, result);
    if (!now || weights || status != SBN_OK) return status;
    if (last) status = sbni_fail(SBN_E_NONFINITE, "a test's failure");
    return sbn_group_agree(model->group, status);
}

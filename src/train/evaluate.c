#include "train/evaluate.h"

#include <inttypes.h>

#include "comm/reduce.h"
#include "core/grid.h"
#include "core/memory.h"
#include "norm/scope.h"

void sbni_fetch(const sbn_dataset *dataset, const int64_t *index, int64_t n, float *x,
                int32_t *labels)
{
    sbn_dataset_info info = sbn_dataset_get_info(dataset);
    int64_t pixels = info.c * info.h * info.w;
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < n; k += SBN_SLICE) {
        int64_t rows = n - k < SBN_SLICE ? n - k : SBN_SLICE;
        sbn_dataset_fetch(dataset, index + k, rows, x + k * pixels, labels + k);
    }
}

sbn_status sbni_check_fit(const sbn_model *model, const sbn_dataset_info *info)
{
    sbn_tensor in = sbn_model_input_shape(model);
    SBN_CHECK(in.c == info->c && in.h == info->h && in.w == info->w, SBN_E_ARG,
              "the net expects images of %" PRId64 "x%" PRId64 "x%" PRId64
              ", the data set has %" PRId64 "x%" PRId64 "x%" PRId64,
              in.c, in.h, in.w, info->c, info->h, info->w);
    SBN_CHECK(sbn_model_classes(model) == info->classes, SBN_E_ARG,
              "the net ends in %" PRId64 " outputs, the data set has %" PRId64 " classes",
              sbn_model_classes(model), info->classes);
    return SBN_OK;
}

/* Samples [first, first + n) by this process, in pieces that keep slices whole. */
static sbn_status evaluate_share(sbn_model *model, const sbn_dataset *dataset,
                                 int64_t first, int64_t n, uint64_t *words)
{
    int64_t capacity;
    float *x = sbn_model_input(model, &capacity);
    int64_t piece = capacity / SBN_SLICE * SBN_SLICE;
    int64_t *index = NULL;
    int32_t *labels = NULL;
    sbn_status status;
    SBN_GOTO(sbni_alloc(piece, sizeof *index, "evaluation", &index));
    SBN_GOTO(sbni_alloc(piece, sizeof *labels, "evaluation", &labels));
    int64_t correct = 0;
    for (int64_t at = 0; at < n; at += piece) {
        int64_t rows = n - at < piece ? n - at : piece;
        for (int64_t i = 0; i < rows; i++) index[i] = first + at + i;
        sbni_fetch(dataset, index, rows, x, labels);
        SBN_GOTO(sbn_model_evaluate(model, labels, rows, words, &correct));
    }
    words[SBNI_SUM_WORDS] = (uint64_t)correct;
fail:
    sbni_free(index);
    sbni_free(labels);
    return status;
}

sbn_status sbni_evaluate(sbn_model *model, const sbn_dataset *dataset, int64_t n,
                         sbn_group *group, sbn_model_result *result)
{
    static const uint32_t tag = 0x6576616c; /* "eval" */
    sbni_reduce message;
    SBN_TRY(sbni_reduce_create(group, SBNI_SUM_WORDS + 1, &message));
    sbni_reduce_clear(&message, tag);
    int64_t first, rows;
    sbni_scope_share(n, SBN_NORM_BATCH_ALL, sbn_group_rank(group), sbn_group_size(group),
                     &first, &rows);
    sbn_status status =
        evaluate_share(model, dataset, first, rows, message.send + SBNI_HEAD_WORDS);
    message.send[SBNI_HEAD_FAILED] = status != SBN_OK;
    sbn_status sent = sbni_reduce_run(&message);
    if (sent == SBN_OK) sent = sbni_reduce_verdict(&message, status, "evaluation");
    if (sent == SBN_OK) {
        const uint64_t *sums = message.sum + SBNI_HEAD_WORDS;
        result->loss = sbn_model_loss(sums) / (double)n;
        result->correct = (int64_t)sums[SBNI_SUM_WORDS];
    }
    sbni_reduce_destroy(&message);
    return sent;
}

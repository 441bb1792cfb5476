#include "train/evaluate.h"

#include <inttypes.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "comm/alike.h"
#include "comm/group.h"
#include "comm/reduce.h"
#include "core/clock.h"
#include "core/grid.h"
#include "core/memory.h"
#include "data/shift.h"
#include "nn/netfile.h"
#include "norm/scope.h"
#include "syncbn/trainer.h"
#include "train/checkpoint.h"
#include "train/hostdata.h"

void sbni_fetch_augmented(const sbn_dataset *dataset, int64_t epoch, const int64_t *index,
                          int64_t n, float *x, int32_t *labels)
{
    sbn_dataset_info info = sbn_dataset_get_info(dataset);
    int64_t pixels = info.c * info.h * info.w;
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < n; k += SBN_SLICE) {
        int64_t rows = n - k < SBN_SLICE ? n - k : SBN_SLICE;
        sbn_dataset_fetch_augmented(dataset, epoch, index + k, rows, x + k * pixels,
                                    labels + k);
    }
}

void sbni_fetch(const sbn_dataset *dataset, const int64_t *index, int64_t n, float *x,
                int32_t *labels)
{
    sbni_fetch_augmented(dataset, -1, index, n, x, labels);
}

sbn_status sbni_check_fit(const sbn_model *model, const sbn_dataset_info *info)
{
    sbn_tensor in = sbn_model_input_shape(model);
    if (in.c != info->c || in.h != info->h || in.w != info->w) {
        char names[256];
        sbni_net_names(info->c, info->h, info->w, names, sizeof names);
        return sbni_fail(SBN_E_ARG,
                         "the net expects images of %" PRId64 "x%" PRId64 "x%" PRId64
                         ", the data set has %" PRId64 "x%" PRId64 "x%" PRId64
                         "; nets that come along for these: %s",
                         in.c, in.h, in.w, info->c, info->h, info->w,
                         *names ? names
                                : "none, so copy a .net file and change its input line");
    }
    SBN_CHECK(sbn_model_classes(model) == info->classes, SBN_E_ARG,
              "the net ends in %" PRId64 " outputs, the data set has %" PRId64 " classes",
              sbn_model_classes(model), info->classes);
    return SBN_OK;
}

/* What is done with the rows in the model's input. */
typedef sbn_status (*visit)(sbn_model *model, const int32_t *labels, int64_t rows,
                            void *context);

/* Samples [first, first + n) by this process, in pieces that keep slices whole. */
static sbn_status visit_share(sbn_model *model, const sbn_dataset *dataset, int64_t first,
                              int64_t n, visit call, void *context)
{
    int64_t capacity;
    float *x = sbn_model_input(model, &capacity);
    int64_t piece = capacity / SBN_SLICE * SBN_SLICE;
    int64_t *index = NULL;
    int32_t *labels = NULL;
    sbn_status status;
    SBN_GOTO(sbni_alloc(piece, sizeof *index, "evaluation", &index));
    SBN_GOTO(sbni_alloc(piece, sizeof *labels, "evaluation", &labels));
    for (int64_t at = 0; at < n; at += piece) {
        int64_t rows = n - at < piece ? n - at : piece;
        for (int64_t i = 0; i < rows; i++) index[i] = first + at + i;
        sbni_fetch(dataset, index, rows, x, labels);
        SBN_GOTO(call(model, labels, rows, context));
    }
fail:
    sbni_free(index);
    sbni_free(labels);
    return status;
}

typedef struct score {
    uint64_t *words;
    int64_t correct;
} score;

static sbn_status add_score(sbn_model *model, const int32_t *labels, int64_t rows,
                            void *context)
{
    score *s = context;
    return sbn_model_evaluate(model, labels, rows, s->words, &s->correct);
}

sbn_status sbni_evaluate(sbn_model *model, const sbn_dataset *dataset, int64_t n,
                         sbn_group *group, sbn_model_result *result)
{
    static const uint32_t tag = 0x6576616c; /* "eval" */
    sbni_reduce message;
    sbn_status made = sbni_reduce_create(group, SBNI_SUM_WORDS + 1, &message);
    if (made == SBN_OK) made = sbni_reduce_label(&message, "model", "evaluation");
    made = sbn_group_agree(group, made);
    if (made == SBN_OK) made = sbni_reduce_connect(&message);
    if (made != SBN_OK) {
        sbni_reduce_destroy(&message);
        return made;
    }
    sbni_reduce_clear(&message, tag);
    int64_t first, rows;
    sbni_scope_share(n, SBN_NORM_BATCH_ALL, sbn_group_rank(group), sbn_group_size(group),
                     &first, &rows);
    score mine = {message.send + SBNI_HEAD_WORDS, 0};
    sbn_status status = visit_share(model, dataset, first, rows, add_score, &mine);
    mine.words[SBNI_SUM_WORDS] = (uint64_t)mine.correct;
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

static sbn_status add_statistics(sbn_model *model, const int32_t *labels, int64_t rows,
                                 void *context)
{
    (void)labels;
    return sbn_model_precise_add(model, *(int *)context, rows);
}

sbn_status sbni_precise(sbn_model *model, const sbn_dataset *dataset, int64_t n,
                        sbn_group *group)
{
    int64_t first, rows;
    sbni_scope_share(n, SBN_NORM_BATCH_ALL, sbn_group_rank(group), sbn_group_size(group),
                     &first, &rows);
    for (int norm = 0; norm < sbn_model_norms(model); norm++) {
        SBN_TRY(sbn_model_precise_begin(model, norm));
        SBN_TRY(sbn_group_agree(
            group, visit_share(model, dataset, first, rows, add_statistics, &norm)));
        SBN_TRY(sbn_model_precise_end(model, norm));
    }
    return SBN_OK;
}

int64_t sbni_model_digest(const sbn_model *model)
{
    int n;
    const sbn_model_tensor *t = sbn_model_tensors(model, &n);
    uint64_t sum = 0;
    for (int i = 0; i < n; i++) {
        int64_t bytes = t[i].count * (t[i].is_integer ? 8 : sbn_dtype_bytes(SBN_F32));
        sum = XXH3_64bits_withSeed(t[i].data, (size_t)bytes, sum);
    }
    return (int64_t)(sum >> 1);
}

/* Model from a weights file; the net from the file itself unless named. */
static sbn_status load_model(const char *weights, const char *net, sbn_group *group,
                             sbn_model **model)
{
    char *text = NULL;
    sbn_status status = SBN_OK;
    if (!net) SBN_GOTO(sbn_group_agree(group, sbni_model_load_text(weights, &text)));
    sbn_model_config cfg = sbn_model_config_default(net ? net : weights, 1);
    cfg.text = text;
    SBN_GOTO(sbn_group_agree(group, sbni_model_load_norm(weights, &cfg)));
    SBN_GOTO(sbn_model_create(&cfg, group, model));
    SBN_GOTO(sbn_group_agree(group, sbni_model_load(weights, *model)));
    /* Each process read its own host's file. */
    status =
        sbni_group_check_same(group, sbni_model_digest(*model), "digest of the weights");
fail:
    sbni_free(text);
    return status;
}

static int64_t least(int64_t most, int64_t n)
{
    return most > 0 && most < n ? most : n;
}

static sbn_status precise_of_training(const sbn_evaluate_config *cfg, sbn_group *group,
                                      sbn_model *model)
{
    sbni_hostdata train;
    sbn_status status;
    SBN_GOTO(sbni_hostdata_open(cfg->data, &(sbn_split){SBN_SPLIT_TRAIN}, 1, cfg->seed,
                                group, &train));
    SBN_GOTO(sbn_group_agree(group, sbni_check_fit(model, &train.info)));
    status = sbni_precise(model, train.dataset, least(cfg->precise, train.info.n), group);
fail:
    sbni_hostdata_close(&train);
    return status;
}

/* Statistics of data in place of running averages, then perhaps a file. n: samples of
 * the test half that are evaluated. */
static sbn_status make_precise(const sbn_evaluate_config *cfg, sbn_group *group,
                               const sbn_dataset *test, int64_t n, sbn_model *model)
{
    if (!cfg->precise) return SBN_OK;
    SBN_CHECK(sbn_model_norms(model) > 0, SBN_E_ARG,
              "precise statistics: the net has no layer with running statistics");
    if (cfg->precise_from == SBN_SPLIT_TEST)
        SBN_TRY(sbni_precise(model, test, least(cfg->precise, n), group));
    else
        SBN_TRY(precise_of_training(cfg, group, model));
    if (!cfg->save) return SBN_OK;
    return sbn_group_agree(
        group, sbn_group_rank(group) == 0 ? sbni_model_save(cfg->save, model) : SBN_OK);
}

sbn_evaluate_config sbn_evaluate_config_default(const char *weights)
{
    return (sbn_evaluate_config){.weights = weights, .data = "fashion-mnist", .seed = 1};
}

sbn_status sbn_evaluate(const sbn_evaluate_config *cfg, sbn_group *group,
                        sbn_trainer_result *result)
{
    SBN_CHECK(cfg && cfg->weights && cfg->data && group && result, SBN_E_ARG,
              "sbn_evaluate: expected weights, a data set, a group and a place for the "
              "result");
    SBN_CHECK(cfg->limit >= 0 && cfg->precise >= SBN_PRECISE_ALL, SBN_E_ARG,
              "sbn_evaluate: expected numbers of samples, got %" PRId64 " and %" PRId64,
              cfg->limit, cfg->precise);
    SBN_CHECK(!cfg->save || cfg->precise, SBN_E_ARG,
              "sbn_evaluate: expected precise statistics to save, got none");
    SBN_CHECK(cfg->precise_from == SBN_SPLIT_TRAIN || cfg->precise_from == SBN_SPLIT_TEST,
              SBN_E_ARG, "sbn_evaluate: expected statistics from a half, got %d",
              (int)cfg->precise_from);
    sbni_shift shift; /* a word that is none is told before files are looked for */
    SBN_TRY(sbni_shift_parse(cfg->shift, &shift));
    sbn_model *model = NULL;
    sbni_hostdata test;
    double began_s = sbni_clock_s();
    sbn_status status;
    SBN_GOTO(sbni_hostdata_open(cfg->data, &(sbn_split){SBN_SPLIT_TEST}, 1, cfg->seed,
                                group, &test));
    SBN_GOTO(load_model(cfg->weights, cfg->net, group, &model));
    SBN_GOTO(sbn_group_agree(group, sbni_check_fit(model, &test.info)));
    SBN_GOTO(sbn_group_agree(group,
                             sbn_dataset_set_shift(test.dataset, cfg->shift, cfg->seed)));
    int64_t n = least(cfg->limit, test.info.n);
    sbn_model_result tested;
    status = make_precise(cfg, group, test.dataset, n, model);
    if (status == SBN_OK) status = sbni_evaluate(model, test.dataset, n, group, &tested);
    if (status != SBN_OK) {
        sbni_fail_in(status, "%s on %s", cfg->weights, cfg->data);
        goto fail;
    }
    double seconds = sbni_clock_s() - began_s;
    *result = (sbn_trainer_result){0,
                                   seconds,
                                   (double)n / seconds,
                                   tested.loss,
                                   (double)tested.correct / (double)n,
                                   {0},
                                   false,
                                   0};
fail:
    sbn_model_destroy(&model);
    sbni_hostdata_close(&test);
    return status;
}

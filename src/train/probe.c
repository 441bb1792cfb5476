#include "train/probe.h"

#include "comm/group.h"
#include "train/evaluate.h"
#include "train/snapshot.h"

static sbn_status score(const sbni_session *s, sbn_split split, int64_t n,
                        sbni_score *score)
{
    sbn_model_result found;
    SBN_TRY(sbni_evaluate(s->model, s->data[split].dataset, n, s->group, &found));
    *score = (sbni_score){found.loss, (double)found.correct / (double)n};
    return SBN_OK;
}

sbn_status sbni_probe_scores(const sbni_session *s, sbni_score *test, sbni_score *train)
{
    SBN_TRY(score(s, SBN_SPLIT_TEST, s->n_test, test));
    if (!s->n_eval_train) return SBN_OK;
    return score(s, SBN_SPLIT_TRAIN, s->n_eval_train, train);
}

sbn_status sbni_probe_precise(sbni_session *s)
{
    int64_t n = s->cfg->precise;
    if (!n) return SBN_OK;
    if (n == SBN_PRECISE_ALL || n > s->n_train) n = s->n_train;
    sbni_snapshot running = {0};
    sbni_score test, train;
    sbn_status status;
    SBN_GOTO(sbn_group_agree(s->group, sbni_snapshot_take(s->model, &running)));
    SBN_GOTO(sbni_precise(s->model, s->data[SBN_SPLIT_TRAIN].dataset, n, s->group));
    SBN_GOTO(sbni_probe_scores(s, &test, &train));
    sbni_snapshot_restore(&running, s->model);
    if (s->metrics && s->written == SBN_OK)
        s->written = sbni_metrics_precise(s->metrics, s->step, n, &test,
                                          s->n_eval_train ? &train : NULL);
fail:
    sbni_snapshot_free(&running);
    return status;
}

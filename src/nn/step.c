#include <inttypes.h>
#include <omp.h>

#include "comm/exact.h"
#include "nn/layer.h"

/* A step: forward, loss, backward, with the messages of norms and gradients between; and
 * evaluation, which has the same forward. */

static void forward_op(sbn_model *m, const sbni_op *op, sbni_task task)
{
    const sbni_layer *layer = op->layer;
    if (op->kind == SBNI_OP_MOMENTS) {
        if (task.training) sbni_norm_layer_moments(layer, task);
        return;
    }
    if (op->kind == SBNI_OP_APPLY)
        sbni_norm_layer_apply(m, layer, task);
    else
        sbni_layer_ops_of(layer->spec.kind)->forward(m, layer, task);
    if (task.training && layer == m->track.layer) sbni_track_slice(m, task);
}

static void backward_op(sbn_model *m, const sbni_op *op, sbni_task task, int what)
{
    const sbni_layer *layer = op->layer;
    switch (op->kind) {
    case SBNI_OP_APPLY:
        sbni_norm_layer_apply(m, layer, task);
        return;
    case SBNI_OP_SUMS:
        sbni_norm_layer_sums(m, layer, task);
        return;
    case SBNI_OP_DX:
        sbni_norm_layer_dx(m, layer, task);
        return;
    default:
        sbni_layer_ops_of(layer->spec.kind)->backward(m, layer, task, what);
        sbni_model_poke(m, task);
    }
}

/* Threads share out the slices. what: parts of backward, 0: forward. */
static void run_slices(sbn_model *m, sbni_ops ops, bool training, int what)
{
#pragma omp parallel for schedule(static) num_threads(m->threads)
    for (int64_t k = 0; k < m->slice_count; k++) {
        sbni_task task = {m->slices[k], k, omp_get_thread_num(), training};
        for (int i = 0; i < ops.count; i++) {
            if (!what)
                forward_op(m, &ops.at[i], task);
            else if (ops.at[i].what & what)
                backward_op(m, &ops.at[i], task, what);
        }
    }
}

/* Calls for all norms whose ops of that kind a run has; goes on after a failure, which
 * all processes have at the same norm, and returns the last. */
static sbn_status each_norm(sbni_ops ops, sbni_op_kind kind,
                            sbn_status (*call)(sbn_norm *))
{
    sbn_status status = SBN_OK;
    for (int i = 0; i < ops.count; i++) {
        if (ops.at[i].kind != kind) continue;
        sbn_status here = call(ops.at[i].layer->norm);
        if (here != SBN_OK) status = here;
    }
    return status;
}

static int count_norms(sbni_ops ops, sbni_op_kind kind)
{
    int n = 0;
    for (int i = 0; i < ops.count; i++) n += ops.at[i].kind == kind;
    return n;
}

/* Messages of several norms travel together. */
static sbn_status sum_moments(sbni_ops ops)
{
    if (count_norms(ops, SBNI_OP_MOMENTS) == 1)
        return each_norm(ops, SBNI_OP_MOMENTS, sbni_norm_slices_forward);
    SBN_TRY(each_norm(ops, SBNI_OP_MOMENTS, sbni_norm_slices_forward_begin));
    return each_norm(ops, SBNI_OP_MOMENTS, sbni_norm_slices_forward_end);
}

sbn_status sbni_model_forward(sbn_model *m, int64_t n, bool training, int runs)
{
    for (int i = 0; i < m->layer_count; i++) sbni_conv_prepare(m, &m->layers[i]);
    for (int r = 0; r < runs; r++) {
        m->runs_done = r + 1;
        sbni_ops ops = m->runs[r].forward;
        for (int i = 0; i < ops.count; i++)
            if (ops.at[i].kind == SBNI_OP_MOMENTS)
                sbni_norm_layer_open(m, ops.at[i].layer, n, training);
        run_slices(m, ops, training, 0);
        if (training) SBN_TRY(sum_moments(ops));
    }
    return SBN_OK;
}

/* Labels index the outputs, so a wrong one must not get that far. */
static sbn_status check_labels(const sbn_model *m, const int32_t *labels, int64_t n)
{
    int64_t classes = sbn_model_classes(m);
    SBN_CHECK(labels || n == 0, SBN_E_ARG, "expected labels, got NULL");
    for (int64_t i = 0; i < n; i++)
        SBN_CHECK(labels[i] >= 0 && labels[i] < classes, SBN_E_ARG,
                  "label of sample %" PRId64 ": expected 0 to %" PRId64 ", got %d", i,
                  classes - 1, (int)labels[i]);
    return SBN_OK;
}

static sbn_status add_to_sum(double loss, uint64_t *words)
{
    int flags = sbni_exact_add(loss, words);
    SBN_CHECK(!(flags & SBNI_GRID_NONFINITE), SBN_E_NONFINITE,
              "the loss is NaN or infinite");
    SBN_CHECK(!flags, SBN_E_RANGE, "a loss of %g is too large for the exact sums", loss);
    return SBN_OK;
}

/* This process's loss, correct count and vote, into the words that travel with the
 * gradients. */
static sbn_status add_loss(sbn_model *m, uint64_t *words)
{
    for (int64_t k = 0; k < m->slice_count; k++) {
        sbn_status status = add_to_sum(m->slice_loss[k], words);
        if (status == SBN_E_NONFINITE) SBN_TRY(sbni_model_blame(m));
        SBN_TRY(status);
        words[SBNI_SUM_WORDS] += (uint64_t)m->slice_correct[k];
    }
    words[SBNI_SUM_WORDS + 1] = (uint64_t)m->vote;
    return SBN_OK;
}

/* One run and the norms whose sums it takes. Where it is split, their messages travel
 * while the gradients of the run's weights are computed, and those of the weights from
 * then to the end of backward. */
static sbn_status backward_run(sbn_model *m, const sbni_run *run, sbn_status *mine)
{
    sbni_ops ops = run->backward;
    bool together = run->splits || count_norms(ops, SBNI_OP_SUMS) > 1;
    run_slices(m, ops, true, run->splits ? SBNI_DX : SBNI_DX | SBNI_DWEIGHTS);
    if (together) SBN_TRY(each_norm(ops, SBNI_OP_SUMS, sbni_norm_slices_backward_begin));
    if (run->splits) run_slices(m, ops, true, SBNI_DWEIGHTS);
    if (run == &m->runs[m->run_count - 1] && *mine == SBN_OK)
        *mine = add_loss(m, sbni_gradsync_extra(m->sync));
    if (m->overlaps && run->segment >= 0)
        SBN_TRY(sbni_gradsync_begin(m->sync, run->segment, *mine));
    return each_norm(ops, SBNI_OP_SUMS,
                     together ? sbni_norm_slices_backward_end
                              : sbni_norm_slices_backward);
}

/* mine: this process's failure so far, and then also that of its loss. */
static sbn_status backward(sbn_model *m, sbn_status *mine, bool *again)
{
    sbni_gradsync_clear(m->sync);
    for (int r = m->run_count - 1; r >= 0; r--) {
        sbn_status status = backward_run(m, &m->runs[r], mine);
        if (status == SBN_OK) continue;
        sbni_gradsync_wait(m->sync); /* all processes fail here, with the same begun */
        return status;
    }
    return m->overlaps ? sbni_gradsync_end(m->sync, again)
                       : sbni_gradsync_run(m->sync, *mine, again);
}

static void read_gradients(sbn_model *m)
{
    for (int i = 0; i < m->param_count; i++) {
        const sbni_param *p = &m->params[i];
        if (p->sync < 0) continue;
        m->kernels->grad_dequantize(sbni_gradsync_sum(m->sync, p->sync), p->tensor.count,
                                    sbni_gradsync_unit(m->sync, p->sync), p->tensor.grad);
    }
}

sbn_status sbn_model_gradient(sbn_model *m, const int32_t *labels, int64_t total,
                              sbn_model_result *result)
{
    int64_t first, n;
    SBN_TRY(sbn_model_share(m, total, &first, &n));
    sbn_status mine = check_labels(m, labels, n); /* reported in the last message */
    m->labels = mine == SBN_OK ? labels : NULL;
    m->loss_weight = 1.0 / (double)total;
    m->first = first;
    m->slice_count = sbni_scope_cut(first, n, m->cfg.norm_batch, m->slices);
    for (int i = 0; i < m->layer_count; i++)
        if (m->layers[i].norm) SBN_TRY(sbn_norm_set_place(m->layers[i].norm, first));
    SBN_TRY(sbni_model_forward(m, n, true, m->run_count));
    bool again;
    do SBN_TRY(backward(m, &mine, &again));
    while (again);
    read_gradients(m);
    const uint64_t *sums = sbni_gradsync_extra_sum(m->sync);
    result->loss = sbn_model_loss(sums) / (double)total;
    result->correct = (int64_t)sums[SBNI_SUM_WORDS];
    result->votes = (int64_t)sums[SBNI_SUM_WORDS + 1];
    m->step++;
    return SBN_OK;
}

void sbn_model_set_step(sbn_model *m, int64_t step)
{
    m->step = step;
}

void sbn_model_set_vote(sbn_model *m, int64_t vote)
{
    m->vote = vote;
}

sbn_status sbn_model_evaluate(sbn_model *m, const int32_t *labels, int64_t n,
                              uint64_t loss_words[4], int64_t *correct)
{
    SBN_CHECK(n >= 0 && n <= m->capacity, SBN_E_ARG,
              "expected 0 to %" PRId64 " samples, got %" PRId64, m->capacity, n);
    SBN_TRY(check_labels(m, labels, n));
    m->slice_count = sbni_scope_cut(0, n, SBN_NORM_BATCH_ALL, m->slices);
    SBN_TRY(sbni_model_forward(m, n, false, m->run_count));
    const sbni_edge *last = sbni_model_last(m);
    for (int64_t k = 0; k < m->slice_count; k++) {
        sbni_task task = {m->slices[k], k, 0, false};
        double loss = m->kernels->nll(sbni_edge_y(m, last, task), labels + task.slice.row,
                                      task.slice.n, last->count, 0, 0, correct, NULL);
        SBN_TRY(add_to_sum(loss, loss_words));
    }
    return SBN_OK;
}

double sbn_model_loss(const uint64_t loss_words[4])
{
    return sbni_exact_sum(loss_words, 1);
}

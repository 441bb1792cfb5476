#include <inttypes.h>
#include <omp.h>

#include "comm/exact.h"
#include "nn/layer.h"

/* A step: forward, loss, backward, with the messages of norms and gradients between; and
 * evaluation, which has the same forward. */

/* A pass through a run: what it does (SBNI_DX, SBNI_DWEIGHTS; 0: forward), and the norms
 * that it touches. */
typedef struct pass {
    int from, to, what;
    const sbni_layer *below, *above; /* NULL: none, or not touched */
    bool training, remakes;
} pass;

static void forward_slice(sbn_model *m, const pass *p, sbni_task task)
{
    const sbni_layer *tracked = p->training ? m->track.layer : NULL;
    if (p->below) sbni_norm_layer_apply(m, p->below, task, p->training);
    if (tracked && tracked == p->below) sbni_track_slice(m, task);
    for (int i = p->from; i < p->to; i++) {
        const sbni_layer *layer = &m->layers[i];
        sbni_layer_ops_of(layer->spec.kind)->forward(m, layer, task);
        if (layer == tracked) sbni_track_slice(m, task);
    }
    if (p->above && p->training) sbni_norm_layer_moments(p->above, task);
}

static void backward_slice(sbn_model *m, const pass *p, sbni_task task)
{
    if (p->what & SBNI_DX && p->above) sbni_norm_layer_dx(m, p->above, task);
    for (int i = p->to - 1; i >= p->from; i--) {
        const sbni_layer *layer = &m->layers[i];
        const sbni_layer_ops *ops = sbni_layer_ops_of(layer->spec.kind);
        if (i == p->from && p->what & SBNI_DWEIGHTS && p->remakes)
            sbni_norm_layer_apply(m, p->below, task, true);
        if (p->what & SBNI_DX || ops->splits) ops->backward(m, layer, task, p->what);
        sbni_model_poke(m, task);
    }
    if (p->what & SBNI_DX && p->below) sbni_norm_layer_sums(m, p->below, task);
}

/* Threads share out the slices. */
static void run_slices(sbn_model *m, const pass *p)
{
#pragma omp parallel for schedule(static) num_threads(m->threads)
    for (int64_t k = 0; k < m->slice_count; k++) {
        sbni_task task = {m->slices[k], k, omp_get_thread_num(), p->training};
        if (p->what)
            backward_slice(m, p, task);
        else
            forward_slice(m, p, task);
    }
}

static pass pass_of(const sbn_model *m, const sbni_run *run, int what)
{
    return (pass){.from = run->from,
                  .to = run->to,
                  .what = what,
                  .below = run->from > 0 ? &m->layers[run->from - 1] : NULL,
                  .above = run->to < m->layer_count ? &m->layers[run->to] : NULL,
                  .training = true,
                  .remakes = run->remakes};
}

sbn_status sbni_model_forward(sbn_model *m, int64_t n, bool training, int until)
{
    for (int r = 0; r < m->run_count && m->runs[r].from <= until; r++) {
        pass p = pass_of(m, &m->runs[r], 0);
        p.training = training;
        if (p.to >= until) {
            p.to = until;
            p.above = NULL;
        }
        if (p.above) sbni_norm_layer_open(m, p.above, n, training);
        run_slices(m, &p);
        if (p.above && training) SBN_TRY(sbni_norm_slices_forward(p.above->norm));
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
static sbn_status add_loss(const sbn_model *m, uint64_t *words)
{
    for (int64_t k = 0; k < m->slice_count; k++) {
        SBN_TRY(add_to_sum(m->slice_loss[k], words));
        words[SBNI_SUM_WORDS] += (uint64_t)m->slice_correct[k];
    }
    words[SBNI_SUM_WORDS + 1] = (uint64_t)m->vote;
    return SBN_OK;
}

/* One run and the norm below it. Where it is split, the norm's message travels while the
 * gradients of the run's weights are computed, and theirs from then to the end of
 * backward. */
static sbn_status backward_run(sbn_model *m, const sbni_run *run, sbn_status *mine)
{
    pass p = pass_of(m, run, run->splits ? SBNI_DX : SBNI_DX | SBNI_DWEIGHTS);
    run_slices(m, &p);
    if (run->splits) {
        SBN_TRY(sbni_norm_slices_backward_begin(p.below->norm));
        p.what = SBNI_DWEIGHTS;
        run_slices(m, &p);
    }
    if (run->to == m->layer_count && *mine == SBN_OK)
        *mine = add_loss(m, sbni_gradsync_extra(m->sync));
    if (m->overlaps && run->segment >= 0)
        SBN_TRY(sbni_gradsync_begin(m->sync, run->segment, *mine));
    if (run->splits) return sbni_norm_slices_backward_end(p.below->norm);
    return p.below ? sbni_norm_slices_backward(p.below->norm) : SBN_OK;
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
    SBN_TRY(sbni_model_forward(m, n, true, m->layer_count));
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
    SBN_TRY(sbni_model_forward(m, n, false, m->layer_count));
    const sbni_edge *last = &m->edges[m->layer_count];
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

#include "support/trial.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "support/harness.h"
#include "support/layer.h"

dice dice_make(uint64_t seed, uint32_t number, int which)
{
    return (dice){.key = {.seed = seed, .purpose = SBNI_RNG_TEST, .epoch = number},
                  .at = (uint64_t)which << 40};
}

int64_t dice_below(dice *d, int64_t n)
{
    return (int64_t)(sbni_rng_uniform(d->key, d->at++, 0) * (double)n);
}

bool dice_chance(dice *d, int percent)
{
    return dice_below(d, 100) < percent;
}

#define PICK(d, list) ((list)[dice_below((d), sizeof(list) / sizeof *(list))])

static const double r_limits[] = {1, 1.1, 3, INFINITY};
static const double d_limits[] = {0, 0.2, 5, INFINITY};

static void draw_config(dice *d, trial *t)
{
    static const int64_t channels[] = {1, 1, 2, 3, 3, 7, 7, 8, 17, 33, 100};
    static const double momenta[] = {0.1, 0.1, 0.37, 1, 0, SBN_MOMENTUM_CUMULATIVE};
    sbn_norm_config *cfg = &t->cfg;
    *cfg = sbn_norm_config_default(PICK(d, channels));
    cfg->dtype = (sbn_dtype)dice_below(d, 3);
    cfg->eps = dice_chance(d, 70) ? 1e-5 : 1e-2;
    cfg->momentum = PICK(d, momenta);
    cfg->affine = dice_chance(d, 80);
    cfg->affine_grad = dice_chance(d, 80);
    cfg->track_running_stats = dice_chance(d, 85);
    cfg->running = (sbn_running)dice_below(d, 2);
    cfg->relu = dice_chance(d, 40);
    cfg->second_order = !cfg->relu && dice_chance(d, 10);
    cfg->name = "trial";
    if (cfg->track_running_stats && dice_chance(d, 40))
        cfg->correction = SBN_CORRECTION_RENORM;
    cfg->r_max = PICK(d, r_limits);
    cfg->d_max = PICK(d, d_limits);
    if (dice_chance(d, 50)) {
        static const int64_t sizes[] = {1, 2, 5, 8, 15, 16, 17, 20, 32, 48, 70};
        cfg->norm_batch = PICK(d, sizes);
    }
    t->warm_batches = dice_chance(d, 60) ? dice_below(d, 5) : -1;
}

/* Slices [bound[r], bound[r+1]) for process r. */
static void draw_bounds(dice *d, int64_t slices, int size, int64_t *bound)
{
    int how = (int)dice_below(d, 4);
    int64_t owner = dice_below(d, size);
    bound[0] = 0;
    bound[size] = slices;
    for (int r = 1; r < size; r++) {
        bound[r] = how == 0   ? slices * r / size
                   : how == 1 ? (r > owner ? slices : 0)
                              : dice_below(d, slices + 1);
        for (int k = r; k > 1 && bound[k] < bound[k - 1]; k--) {
            int64_t other = bound[k];
            bound[k] = bound[k - 1];
            bound[k - 1] = other;
        }
    }
}

static void draw_mask(dice *d, trial_share *p, bool masked)
{
    int64_t drop = 0;
    if (masked)
        drop = p->kept && dice_chance(d, 30) ? 0 : dice_below(d, TRIAL_DROPPED + 1);
    p->n = p->kept + drop;
    int64_t keep = p->kept;
    for (int64_t i = 0; i < p->n; i++) {
        p->keep[i] = dice_below(d, p->n - i) < keep;
        keep -= p->keep[i];
    }
}

/* Strides that nest, inner first, with gaps; an axis of length 1 has any. */
static slab_layout draw_layout(dice *d, const trial *t, const trial_step *k, int64_t n,
                               int which)
{
    enum { AXIS_N, AXIS_C, AXIS_S };
    int64_t extent[3] = {n, t->cfg.channels, trial_pixels(k)}, stride[3], span = 1;
    int order[3] = {k->planes ? AXIS_S : AXIS_C, k->planes ? AXIS_C : AXIS_S, AXIS_N};
    bool dense = dice_chance(d, 40);
    /* channels or pixels outside of samples, and without pixels any order */
    if (dice_chance(d, 15)) order[1] = AXIS_N, order[2] = k->planes ? AXIS_C : AXIS_S;
    if (extent[AXIS_S] == 1 && order[0] == AXIS_S) order[0] = order[1], order[1] = AXIS_S;
    for (int a = 0; a < 3; a++) {
        int axis = order[a];
        bool neighbours = axis == (k->planes ? AXIS_S : AXIS_C);
        int64_t gap = dense ? 0 : dice_below(d, 5);
        /* without pixels channels may be apart: that is planes of one pixel */
        if (neighbours && (extent[AXIS_S] > 1 || dice_chance(d, 50))) gap = 0;
        stride[axis] = span + gap;
        /* with one channel this alone tells rows from planes: it fixes the form */
        if (!k->planes && axis == AXIS_S && extent[AXIS_C] == 1 && which == TRIAL_X)
            stride[axis] += 1 + (stride[axis] > 1 ? 0 : 1);
        if (extent[axis] > 1) {
            span = stride[axis] * extent[axis];
        } else {
            static const int64_t any[] = {0, -3, 1, 1000000};
            if (dice_chance(d, 30)) stride[axis] = PICK(d, any);
        }
    }
    return (slab_layout){stride[AXIS_N], stride[AXIS_C], stride[AXIS_S],
                         dice_below(d, 4)};
}

static bool rereads_x(const trial *t, const trial_step *k)
{
    if (k->mode == SBN_NORM_TRAIN) return true;
    return k->mode == SBN_NORM_FROZEN &&
           (t->cfg.relu || (t->cfg.affine && t->cfg.affine_grad));
}

static void draw_places(dice *d, const trial *t, const trial_step *k, trial_share *p)
{
    p->y_place = TRIAL_Y;
    if (!rereads_x(t, k) && dice_chance(d, 30)) p->y_place = TRIAL_X;
    if (k->add && !(t->cfg.relu && rereads_x(t, k)) && dice_chance(d, 30))
        p->y_place = TRIAL_Z;
    p->dx_place = dice_chance(d, 80) ? TRIAL_DX : -1;
    p->dz_place = k->add && dice_chance(d, 80) ? TRIAL_DZ : -1;
    if (dice_chance(d, 25)) {
        if (k->add && dice_chance(d, 50))
            p->dz_place = TRIAL_DY;
        else
            p->dx_place = TRIAL_DY;
    }
    for (int i = 0; i < TRIAL_TENSORS; i++) p->layout[i] = draw_layout(d, t, k, p->n, i);
}

/* First samples of the slices, counted from the start of each norm batch, and the end. */
static int64_t cut(int64_t n, int64_t norm_batch, int64_t *start)
{
    int64_t count = 0, row = 0, m = norm_batch ? norm_batch : n;
    while (row < n) {
        start[count++] = row;
        int64_t left = m - row % m;
        row += left < SBN_SLICE ? left : SBN_SLICE;
    }
    start[count] = n;
    return count;
}

static void draw_shares(dice *d, const trial *t, trial_step *k)
{
    int64_t start[TRIAL_ROWS + 1], bound[TRIAL_SIZE + 1];
    draw_bounds(d, cut(k->n, t->cfg.norm_batch, start), t->size, bound);
    for (int r = 0; r < t->size; r++) {
        trial_share *p = &k->share[r];
        p->first = start[bound[r]];
        p->kept = start[bound[r + 1]] - p->first;
        draw_mask(d, p, k->masked);
        draw_places(d, t, k, p);
    }
}

static void draw_shape(dice *d, const trial *t, trial_step *k)
{
    static const int64_t sizes[] = {1, 1, 2, 3, 5, 8, 10, 13, 16, 17, 25, 36, 40};
    int64_t pixels = PICK(d, sizes), c = t->cfg.channels;
    if (dice_chance(d, 30)) pixels = 1;
    if (t->cfg.norm_batch == 1 && pixels == 1 && dice_chance(d, 80)) pixels = 5;
    k->n = dice_chance(d, 5) ? dice_below(d, 3) : dice_below(d, TRIAL_ROWS + 1);
    /* mostly small, so that there is time for many */
    int64_t limit = dice_chance(d, 6) ? 60000 : 6000;
    while (k->n * c * pixels > limit && k->n > 3) k->n /= 2;
    while (k->n * c * pixels > limit && pixels > 1) pixels = (pixels + 1) / 2;
    k->shape[0] = k->shape[1] = 1;
    k->shape[2] = pixels;
    for (int axis = 0; axis < 2; axis++)
        for (int64_t by = 2; by <= 5; by++)
            if (k->shape[2] % by == 0 && k->shape[2] > by && dice_chance(d, 40)) {
                k->shape[axis] *= by;
                k->shape[2] /= by;
            }
    k->planes = dice_chance(d, 50);
}

static void draw_step(dice *d, const trial *t, trial_step *k)
{
    draw_shape(d, t, k);
    int mode = (int)dice_below(d, 100);
    k->mode = mode < 60   ? SBN_NORM_TRAIN
              : mode < 75 ? SBN_NORM_EVAL
              : mode < 85 ? SBN_NORM_EVAL_BATCH
                          : SBN_NORM_FROZEN;
    if (!t->cfg.track_running_stats && k->mode == SBN_NORM_FROZEN)
        k->mode = SBN_NORM_TRAIN;
    k->add = dice_chance(d, 35);
    k->masked = dice_chance(d, 40);
    k->poison = dice_chance(d, 50);
    k->halves = dice_chance(d, 40);
    k->meddle = dice_chance(d, 30);
    k->threads = 1 + (int)dice_below(d, 3);
    k->backward =
        dice_chance(d, 90) && (k->mode == SBN_NORM_TRAIN || k->mode == SBN_NORM_FROZEN);
    k->peek = t->cfg.track_running_stats && dice_chance(d, 30)
                  ? (int)dice_below(d, t->size)
                  : -1;
    k->r_max = PICK(d, r_limits);
    k->d_max = PICK(d, d_limits);
    draw_shares(d, t, k);
}

trial *trial_draw(uint64_t seed, uint32_t number, int size)
{
    assert_true(size <= TRIAL_SIZE);
    trial *t = calloc(1, sizeof *t);
    t->seed = seed;
    t->number = number;
    t->size = size;
    dice d = dice_make(seed, number, 0);
    draw_config(&d, t);
    t->steps = 2 + (int)dice_below(&d, 2);
    int64_t most = t->cfg.norm_batch;
    for (int i = 0; i < t->steps; i++) {
        draw_step(&d, t, &t->step[i]);
        if (t->step[i].n > most) most = t->step[i].n;
    }
    /* room to spare: norm batches that nobody has */
    if (t->cfg.norm_batch) t->cfg.batch = most + (dice_chance(&d, 30) ? 50 : 0);
    return t;
}

bool trial_is_fixed(const trial *t, const trial_step *k)
{
    return k->mode == SBN_NORM_FROZEN ||
           (k->mode == SBN_NORM_EVAL && t->cfg.track_running_stats);
}

sbn_status trial_status(const trial *t, const trial_step *k)
{
    if (trial_is_fixed(t, k) || k->n == 0 || trial_pixels(k) > 1) return SBN_OK;
    int64_t m = t->cfg.norm_batch;
    bool few = m ? m == 1 || k->n % m == 1 : k->n == 1;
    return few ? SBN_E_FEW : SBN_OK;
}

/* A channel's values lie about a mean that may be far from 0, or are all alike. */
static void fill_channel(const trial *t, int step, trial_batch *b, int64_t i)
{
    static const double means[] = {0, 0.5, -3, 30, 1000}, widths[] = {1, 2, 0.5, 0.01, 0};
    dice d = dice_make(t->seed, t->number, 16 + step);
    d.at += (uint64_t)i * 8;
    double mean = PICK(&d, means), width = PICK(&d, widths);
    sbni_rng_key key = d.key;
    for (int64_t row = 0; row < b->n; row++)
        for (int64_t j = 0; j < b->s; j++) {
            int64_t e = (row * b->c + i) * b->s + j;
            uint32_t word[4];
            sbni_rng_words(key, (uint64_t)e, 1 + (uint32_t)step, word);
            double u[4];
            for (int k = 0; k < 4; k++) u[k] = (double)word[k] * 0x1p-32;
            /* zeros, so that sums before relu hit 0 where the channel is constant */
            double values[3] = {mean + width * 3 * (u[0] + u[1] - 1),
                                u[2] < 0.2 ? 0 : 4 * u[2] - 2, 3 * u[3] - 1.2};
            double *to[3] = {b->x + e, b->z + e, b->dy + e};
            for (int k = 0; k < 3; k++) {
                char room[8];
                set_element(t->cfg.dtype, room, 0, values[k]);
                *to[k] = element(t->cfg.dtype, room, 0);
            }
        }
}

trial_batch trial_batch_make(const trial *t, int step)
{
    const trial_step *k = &t->step[step];
    trial_batch b = {.n = k->n, .c = t->cfg.channels, .s = trial_pixels(k)};
    double **arrays[] = {&b.x, &b.z, &b.dy};
    for (int i = 0; i < 3; i++)
        *arrays[i] = calloc((size_t)(b.n * b.c * b.s) + 1, sizeof(double));
    for (int64_t i = 0; i < b.c; i++) fill_channel(t, step, &b, i);
    return b;
}

void trial_batch_free(trial_batch *b)
{
    free(b->x);
    free(b->z);
    free(b->dy);
    *b = (trial_batch){0};
}

static void print_share(const trial *t, const trial_step *k, int rank, FILE *out)
{
    static const char *const names[] = {"x", "z", "y", "dy", "dx", "dz"};
    const trial_share *p = &k->share[rank];
    fprintf(out, "    process %d: first %" PRId64 ", kept %" PRId64 " of %" PRId64, rank,
            p->first, p->kept, p->n);
    if (p->n > p->kept) {
        fputs(", mask ", out);
        for (int64_t i = 0; i < p->n; i++) fputc('0' + p->keep[i], out);
    }
    const int place[] = {TRIAL_X,  TRIAL_Z,     p->y_place,
                         TRIAL_DY, p->dx_place, p->dz_place};
    for (int i = 0; i < TRIAL_TENSORS; i++) {
        if ((!k->add && (i == TRIAL_Z || i == TRIAL_DZ)) ||
            (!k->backward && i >= TRIAL_DY))
            continue;
        const slab_layout *at = &p->layout[i];
        if (place[i] < 0)
            fprintf(out, "; no %s", names[i]);
        else if (place[i] != i)
            fprintf(out, "; %s in %s", names[i], names[place[i]]);
        else
            fprintf(out, "; %s (%" PRId64 " %" PRId64 " %" PRId64 ")+%" PRId64, names[i],
                    at->stride_n, at->stride_c, at->stride_s, at->offset);
    }
    fprintf(out, "%s\n", t->size > 1 && k->peek == rank ? "; peeks" : "");
}

void trial_print(const trial *t, FILE *out)
{
    static const char *const types[] = {"f32", "f64", "bf16"}, *const modes[] = {
                                                                   "train", "eval",
                                                                   "eval_batch",
                                                                   "frozen"};
    const sbn_norm_config *cfg = &t->cfg;
    fprintf(out,
            "alone again: SBN_TEST_SEED=%" PRIu64 " SBN_TEST_CASE=%" PRIu32
            " with %d processes\n"
            "  %s, c %" PRId64
            ", eps %g, momentum %g, affine %d, affine_grad %d, tracked "
            "%d, running %d, norm_batch %" PRId64 ", batch %" PRId64
            ", renorm %d (%g, %g), relu %d, second %d, warm %" PRId64 "\n",
            t->seed, t->number, t->size, types[cfg->dtype], cfg->channels, cfg->eps,
            cfg->momentum, cfg->affine, cfg->affine_grad, cfg->track_running_stats,
            (int)cfg->running, cfg->norm_batch, cfg->batch, (int)cfg->correction,
            cfg->r_max, cfg->d_max, cfg->relu, cfg->second_order, t->warm_batches);
    for (int i = 0; i < t->steps; i++) {
        const trial_step *k = &t->step[i];
        fprintf(out,
                "  step %d: %s, n %" PRId64 ", pixels %" PRId64 "x%" PRId64 "x%" PRId64
                ", %s, add %d, masked %d (poison %d), backward %d, halves %d, meddle %d, "
                "threads %d, peek %d, limits %g %g\n",
                i, modes[k->mode], k->n, k->shape[0], k->shape[1], k->shape[2],
                k->planes ? "planes" : "rows", k->add, k->masked, k->poison, k->backward,
                k->halves, k->meddle, k->threads, k->peek, k->r_max, k->d_max);
        for (int r = 0; r < t->size; r++) print_share(t, k, r, out);
    }
}

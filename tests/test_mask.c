/* Samples left out are samples removed: to the bit, in every pass, whatever they hold. */
#include "support/harness.h"
#include "support/seat.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 128 };

/* Ways to leave samples out; the last one leaves out all. */
enum { PATTERNS = 7 };

static bool keeps(int pattern, int64_t r, int64_t n)
{
    switch (pattern) {
    case 0:
        return true;
    case 1:
        return r % 3 != 1;
    case 2:
        return r >= n / 2; /* all of the first processes */
    case 3:
        return r * 7 % 5 < 2;
    case 4:
        return r != 0 && r != n - 1;
    case 5:
        return r % 16 < 2 || r < 3;
    default:
        return false;
    }
}

static int64_t kept_before(int pattern, int64_t r, int64_t n)
{
    int64_t count = 0;
    for (int64_t k = 0; k < r; k++) count += keeps(pattern, k, n);
    return count;
}

/* The batch without the samples left out. */
static joined remaining(const joined *b, int pattern)
{
    int64_t kept = kept_before(pattern, b->n, b->n), row = b->c * b->h * b->w, to = 0;
    joined cut =
        joined_make(b->dtype, (norm_case){kept, b->c, b->h, b->w, b->norm_batch}, 1);
    memcpy(cut.gamma_d, b->gamma_d, (size_t)b->c * 8);
    memcpy(cut.beta_d, b->beta_d, (size_t)b->c * 8);
    for (int64_t r = 0; r < b->n; r++) {
        if (!keeps(pattern, r, b->n)) continue;
        memcpy(cut.x_d + to * row, b->x_d + r * row, (size_t)row * 8);
        memcpy(cut.dy_d + to * row, b->dy_d + r * row, (size_t)row * 8);
        to++;
    }
    joined_store(&cut);
    return cut;
}

static void set_mask(seat *s, int pattern, int64_t total)
{
    uint8_t keep[MOST] = {0};
    for (int64_t r = 0; r < s->n; r++) keep[r] = keeps(pattern, s->first + r, total);
    OK(sbn_norm_set_mask(s->norm, keep, s->n));
    OK(sbn_norm_set_place(s->norm, kept_before(pattern, s->first, total)));
}

/* x, dy and z of what is left out must not matter. */
static void poison(const seat *s, int pattern, int64_t total)
{
    for (int64_t r = 0; r < s->n; r++)
        for (int64_t i = 0; i < s->x.c; i++)
            for (int64_t j = 0; j < tensor_pixels(&s->x); j++) {
                if (keeps(pattern, s->first + r, total)) continue;
                tensor_set(&s->x, r, i, j, NAN);
                tensor_set(&s->dy, r, i, j, INFINITY);
                tensor_set(&s->z, r, i, j, NAN);
            }
}

/* Samples kept have the bits of got's counterpart, the others are +0. */
static void check(const seat *s, const sbn_tensor *got, const sbn_tensor *want,
                  int pattern, int64_t total)
{
    int64_t at = 0;
    for (int64_t r = 0; r < s->n; r++) {
        sbn_tensor one = *got;
        one.n = 1;
        one.data = (char *)got->data + r * got->stride_n * sbn_dtype_bytes(got->dtype);
        if (keeps(pattern, s->first + r, total)) {
            tensor_same(&one, want, at++);
            continue;
        }
        char zeros[4096] = {0};
        assert_true(tensor_bytes(&one) <= (int64_t)sizeof zeros);
        same_bits(one.data, zeros, tensor_bytes(&one));
    }
}

typedef struct trial {
    norm_case shape;
    sbn_dtype dtype;
    layout form;
    bool relu, add, renorm;
    sbn_norm_mode mode;
} trial;

/* A batch of the group need hold no more than the samples kept. */
static sbn_norm_config settings(const trial *t, int64_t total)
{
    sbn_norm_config cfg = sbn_norm_config_default(t->shape.c);
    cfg.dtype = t->dtype;
    cfg.norm_batch = t->shape.norm_batch;
    cfg.batch = total > t->shape.norm_batch ? total : t->shape.norm_batch;
    cfg.relu = t->relu;
    if (t->renorm) {
        cfg.correction = SBN_CORRECTION_RENORM;
        cfg.r_max = 1.3;
        cfg.d_max = 0.4;
    }
    return cfg;
}

static void run(const trial *t, seat *s)
{
    seat_draw_running(s);
    OK(sbn_norm_set_mode(s->norm, t->mode));
    bool backward = t->mode == SBN_NORM_TRAIN || t->mode == SBN_NORM_FROZEN;
    for (int step = 0; step < 2; step++) {
        if (backward)
            seat_step(s, t->add);
        else if (t->add)
            OK(sbn_norm_forward_add(s->norm, &s->x, &s->z, &s->y));
        else
            OK(sbn_norm_forward(s->norm, &s->x, &s->y));
    }
}

static void check_removal(const trial *t, int pattern, int turn)
{
    joined b = joined_make(t->dtype, t->shape, 81),
           other = joined_make(t->dtype, t->shape, 82);
    joined cut = remaining(&b, pattern), cut_other = remaining(&other, pattern);
    int64_t first, n, total = b.n;
    uneven(total, turn, test_rank, test_size, &first, &n);
    int64_t kept_first = kept_before(pattern, first, total),
            kept = kept_before(pattern, first + n, total) - kept_first;
    sbn_norm_config cfg = settings(t, cut.n);
    seat masked = seat_make(&cfg, test_group, &b, t->form, 0, n),
         removed = seat_make(&cfg, test_group, &cut, t->form, kept_first, kept);
    masked.first = first; /* a place that the batch need not have */
    tensor_fill(&masked.x, b.x_d, first);
    tensor_fill(&masked.dy, b.dy_d, first);
    tensor_fill(&masked.z, other.dy_d, first);
    tensor_fill(&removed.z, cut_other.dy_d, kept_first);
    set_mask(&masked, pattern, total);
    poison(&masked, pattern, total);
    run(t, &masked);
    run(t, &removed);
    check(&masked, &masked.y, &removed.y, pattern, total);
    if (t->mode == SBN_NORM_TRAIN || t->mode == SBN_NORM_FROZEN) {
        check(&masked, &masked.dx, &removed.dx, pattern, total);
        if (t->add) check(&masked, &masked.dz, &removed.dz, pattern, total);
    }
    seat_same_state(&masked, &removed);
    seat_free(&masked);
    seat_free(&removed);
    joined *owned[] = {&b, &other, &cut, &cut_other};
    for (int k = 0; k < 4; k++) joined_free(owned[k]);
}

static const trial trials[] = {
    {{40, 3, 1, 5, 0}, SBN_F32, NCHW, false, false, false, SBN_NORM_TRAIN},
    {{40, 3, 1, 5, 0}, SBN_F64, NHWC, false, true, false, SBN_NORM_TRAIN},
    {{97, 9, 1, 1, 0}, SBN_F32, NCHW, true, false, false, SBN_NORM_TRAIN},
    {{61, 3, 2, 3, 8}, SBN_F64, NCHW, true, true, false, SBN_NORM_TRAIN},
    {{70, 2, 1, 4, 20}, SBN_F32, NHWC, false, false, true, SBN_NORM_TRAIN},
    {{100, 17, 1, 2, 32}, SBN_BF16, NHWC, true, true, true, SBN_NORM_TRAIN},
    {{40, 3, 1, 5, 0}, SBN_F32, NCHW, false, true, false, SBN_NORM_EVAL},
    {{40, 3, 1, 5, 16}, SBN_F64, NHWC, true, false, false, SBN_NORM_EVAL},
    {{44, 5, 1, 3, 12}, SBN_F32, NHWC, true, true, false, SBN_NORM_EVAL_BATCH},
    {{44, 5, 1, 3, 0}, SBN_F64, NCHW, false, false, false, SBN_NORM_FROZEN},
    {{44, 5, 1, 3, 11}, SBN_F32, NHWC, true, true, false, SBN_NORM_FROZEN},
};
enum { TRIALS = sizeof trials / sizeof *trials };

static void trap_29_mask_is_removal(void **state)
{
    (void)state;
    for (int k = 0; k < TRIALS; k++)
        for (int pattern = 0; pattern < PATTERNS; pattern++)
            check_removal(&trials[k], pattern, k + pattern);
}

static const norm_case shape = {12, 3, 1, 4, 0};

/* The mask of a forward holds for its backward, and for evaluation in between it is the
 * new one. */
static void a_mask_belongs_to_its_forward(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F32, shape, 83);
    sbn_norm_config cfg = joined_config(&b);
    for (int halves = 0; halves < 2; halves++) {
        seat s = seat_make(&cfg, test_group, &b, NCHW, 0, b.n),
             want = seat_make(&cfg, test_group, &b, NCHW, 0, b.n);
        set_mask(&want, 1, b.n);
        seat_step(&want, false);
        set_mask(&s, 1, b.n);
        if (halves) {
            OK(sbn_norm_forward_begin(s.norm, &s.x, &s.y));
            set_mask(&s, 3, b.n);
            OK(sbn_norm_forward_end(s.norm));
            OK(sbn_norm_backward_begin(s.norm, &s.dy, &s.dx));
            OK(sbn_norm_set_mask(s.norm, NULL, 0));
            OK(sbn_norm_backward_end(s.norm));
        } else {
            OK(sbn_norm_forward(s.norm, &s.x, &s.y));
            OK(sbn_norm_set_mask(s.norm, NULL, 0));
            OK(sbn_norm_set_mode(s.norm, SBN_NORM_EVAL));
            OK(sbn_norm_forward(s.norm, &s.x, &s.dz));
            OK(sbn_norm_backward(s.norm, &s.dy, &s.dx));
        }
        seat_same_samples(&s, &want, 0, false);
        seat_same_state(&s, &want);
        seat_free(&s);
        seat_free(&want);
    }
    joined_free(&b);
}

static void wrong_masks(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F64, shape, 84);
    sbn_norm_config cfg = joined_config(&b);
    seat s = seat_make(&cfg, test_group, &b, NCHW, 0, b.n),
         want = seat_make(&cfg, test_group, &b, NCHW, 0, b.n);
    uint8_t keep[MOST] = {1, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1}, wrong[MOST];
    FAILS(SBN_E_ARG, sbn_norm_set_mask(NULL, keep, b.n));
    OK(sbn_norm_set_mask(want.norm, keep, b.n));
    OK(sbn_norm_set_mask(s.norm, keep, b.n));
    for (int k = 0; k < 3; k++) { /* refused, and the mask before it stays */
        memset(wrong, 0, sizeof wrong);
        wrong[11] = k == 0 ? 2 : 255;
        FAILS(SBN_E_ARG, sbn_norm_set_mask(s.norm, wrong, k < 2 ? b.n : -1));
    }
    seat_step(&want, false);
    seat_step(&s, false);
    seat_same_samples(&s, &want, 0, false);
    seat_same_state(&s, &want);
    EACH_BAD(bad)
    for (int64_t n = b.n - 1; n <= b.n + 1; n += 2) {
        if (IS_BAD(bad)) OK(sbn_norm_set_mask(s.norm, keep, n));
        FAILS_ON(bad, SBN_E_ARG, sbn_norm_forward(s.norm, &s.x, &s.y));
        OK(sbn_norm_forward_begin(s.norm, &s.x, &s.y));
        FAILS_ON(bad, SBN_E_ARG, sbn_norm_forward_end(s.norm));
        OK(sbn_norm_set_mode(s.norm, SBN_NORM_EVAL)); /* each for itself */
        FAILS(IS_BAD(bad) ? SBN_E_ARG : SBN_OK, sbn_norm_forward(s.norm, &s.x, &s.y));
        OK(sbn_norm_set_mode(s.norm, SBN_NORM_TRAIN));
        /* none of no samples is a mask too */
        if (IS_BAD(bad)) OK(sbn_norm_set_mask(s.norm, keep, 0));
        FAILS_ON(bad, SBN_E_ARG, sbn_norm_forward(s.norm, &s.x, &s.y));
        OK(sbn_norm_set_mask(s.norm, keep, b.n));
        assert_int_equal(*s.state.num_batches_tracked, 1);
    }
    seat_step(&want, false);
    seat_step(&s, false);
    seat_same_state(&s, &want);
    seat_free(&s);
    seat_free(&want);
    joined_free(&b);
}

/* One value left in the group has no variance; none left changes nothing. */
static void little_is_left(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F32, (norm_case){6, 3, 1, 1, 0}, 85);
    sbn_norm_config cfg = joined_config(&b);
    seat s = seat_make(&cfg, test_group, &b, NCHW, 0, b.n);
    uint8_t keep[MOST] = {0};
    keep[4] = test_rank == test_size - 1;
    OK(sbn_norm_set_mask(s.norm, keep, b.n));
    FAILS(SBN_E_FEW, sbn_norm_forward(s.norm, &s.x, &s.y));
    keep[4] = 0;
    OK(sbn_norm_set_mask(s.norm, keep, b.n));
    seat_step(&s, false);
    assert_int_equal(*s.state.num_batches_tracked, 0);
    for (int i = 0; i < 3; i++) {
        assert_true(element(SBN_F32, s.state.weight_grad, i) == 0);
        assert_true(element(SBN_F32, s.state.running_var, i) == 1);
    }
    float zeros[6 * 3] = {0};
    same_bits(s.y.data, zeros, sizeof zeros);
    same_bits(s.dx.data, zeros, sizeof zeros);
    seat_free(&s);
    joined_free(&b);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(trap_29_mask_is_removal),
    cmocka_unit_test(a_mask_belongs_to_its_forward),
    cmocka_unit_test(wrong_masks),
    cmocka_unit_test(little_is_left),
};
TEST_MAIN(tests)

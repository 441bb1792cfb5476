/* Add and relu in the same pass are the separate operations, to the bit, in both
 * directions. */
#include "support/harness.h"
#include "support/seat.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static seat share(const sbn_norm_config *cfg, const joined *b, layout form, int turn)
{
    int64_t first, n;
    uneven(b->n, turn, test_rank, test_size, &first, &n);
    return seat_make(cfg, test_group, b, form, first, n);
}

/* a + b in the type's arithmetic. */
static double plus(sbn_dtype dtype, double a, double b)
{
    return dtype == SBN_F64 ? a + b : (double)((float)a + (float)b);
}

typedef struct trial {
    norm_case shape;
    sbn_dtype dtype;
    layout form;
    sbn_norm_mode mode;
    bool renorm;
    int drop; /* each so-many-th sample is masked */
} trial;

static const trial trials[] = {
    {{37, 3, 1, 5, 0}, SBN_F32, NCHW, SBN_NORM_TRAIN, false, 0},
    {{37, 3, 1, 5, 0}, SBN_F64, NHWC, SBN_NORM_TRAIN, false, 0},
    {{20, 2, 9, 9, 0}, SBN_F32, NCHW, SBN_NORM_TRAIN, false, 3},
    {{20, 41, 2, 2, 0}, SBN_F32, NHWC, SBN_NORM_TRAIN, false, 4},
    {{50, 9, 1, 1, 0}, SBN_F64, NCHW, SBN_NORM_TRAIN, true, 0},
    {{61, 5, 2, 3, 17}, SBN_F64, NCHW, SBN_NORM_TRAIN, false, 0},
    {{61, 12, 1, 3, 16}, SBN_F32, NHWC, SBN_NORM_TRAIN, true, 5},
    {{37, 3, 1, 5, 0}, SBN_F64, NCHW, SBN_NORM_FROZEN, false, 0},
    {{30, 17, 1, 2, 10}, SBN_F32, NHWC, SBN_NORM_FROZEN, false, 3},
    {{37, 3, 1, 5, 0}, SBN_F32, NCHW, SBN_NORM_EVAL, false, 0},
    {{37, 9, 1, 5, 8}, SBN_F64, NHWC, SBN_NORM_EVAL_BATCH, false, 4},
};
enum { TRIALS = sizeof trials / sizeof *trials };

static seat start(const trial *t, const joined *b, bool relu, int turn)
{
    sbn_norm_config cfg = joined_config(b);
    cfg.relu = relu;
    if (t->renorm) {
        cfg.correction = SBN_CORRECTION_RENORM;
        cfg.r_max = 1.4;
        cfg.d_max = 0.3;
    }
    seat s = share(&cfg, b, t->form, turn);
    seat_draw_running(&s);
    uint8_t keep[64] = {0};
    for (int64_t r = 0; r < s.n; r++) keep[r] = (s.first + r) % (t->drop + 1) != 1;
    if (t->drop) OK(sbn_norm_set_mask(s.norm, keep, s.n));
    if (t->drop) { /* places count the samples kept */
        int64_t before = 0;
        for (int64_t r = 0; r < s.first; r++) before += r % (t->drop + 1) != 1;
        OK(sbn_norm_set_place(s.norm, before));
    }
    OK(sbn_norm_set_mode(s.norm, t->mode));
    return s;
}

/* What the plain layer gave becomes what the operations after it make of it, and dy what
 * they pass back. Where the sum is exactly 0 nothing passes. */
static void separately(const trial *t, seat *plain, bool add, bool relu)
{
    for (int64_t e = 0; e < plain->n * plain->x.c * tensor_pixels(&plain->x); e++) {
        sbn_dtype type = t->dtype;
        int64_t r = e / (plain->x.c * tensor_pixels(&plain->x));
        bool kept = !t->drop || (plain->first + r) % (t->drop + 1) != 1;
        int64_t i = e / tensor_pixels(&plain->x) % plain->x.c,
                j = e % tensor_pixels(&plain->x);
        double y = tensor_get(&plain->y, r, i, j), dy = tensor_get(&plain->dy, r, i, j);
        if (add && kept) y = plus(type, y, tensor_get(&plain->z, r, i, j));
        if (relu && y < 0) y = 0;
        if ((relu && !(y > 0)) || !kept) dy = 0;
        tensor_set(&plain->y, r, i, j, y);
        tensor_set(&plain->dy, r, i, j, dy);
        tensor_set(&plain->dz, r, i, j, dy);
    }
}

static void check(const trial *t, bool add, bool relu, int turn)
{
    joined b = joined_make(t->dtype, t->shape, 131);
    seat plain = start(t, &b, false, turn), fused = start(t, &b, relu, turn);
    OK(sbn_norm_forward(plain.norm, &plain.x, &plain.y));
    for (int64_t r = 0; r < plain.n; r++) /* sums that are 0 to the bit */
        for (int64_t i = 0; i < b.c; i++) {
            double minus = -tensor_get(&plain.y, r, i, r % (b.h * b.w));
            tensor_set(&plain.z, r, i, r % (b.h * b.w), minus);
            tensor_set(&fused.z, r, i, r % (b.h * b.w), minus);
        }
    separately(t, &plain, add, relu);
    bool backward = t->mode == SBN_NORM_TRAIN || t->mode == SBN_NORM_FROZEN;
    if (backward) OK(sbn_norm_backward(plain.norm, &plain.dy, &plain.dx));
    if (backward) {
        seat_step(&fused, add);
        seat_same_samples(&fused, &plain, 0, add);
        seat_same_state(&fused, &plain);
        memset(fused.dx.data, 0xff, (size_t)tensor_bytes(&fused.dx));
        if (add) { /* halves, each gradient in the place of dy or not at all */
            OK(sbn_norm_backward_add_begin(fused.norm, &fused.dy, NULL, &fused.dy));
            OK(sbn_norm_backward_end(fused.norm));
            tensor_same(&fused.dy, &plain.dz, 0);
            tensor_fill(&fused.dy, b.dy_d, fused.first);
            OK(sbn_norm_backward_add(fused.norm, &fused.dy, &fused.dy, NULL));
            tensor_same(&fused.dy, &plain.dx, 0);
        }
        seat_same_state(&fused, &plain);
    } else if (add) {
        OK(sbn_norm_forward_add_begin(fused.norm, &fused.x, &fused.z, &fused.y));
        OK(sbn_norm_forward_end(fused.norm));
        tensor_same(&fused.y, &plain.y, 0);
        OK(sbn_norm_forward_add(fused.norm, &fused.x, &fused.z, &fused.z));
        tensor_same(&fused.z, &plain.y, 0);
    } else {
        OK(sbn_norm_forward(fused.norm, &fused.x, &fused.y));
        tensor_same(&fused.y, &plain.y, 0);
    }
    seat_free(&plain);
    seat_free(&fused);
    joined_free(&b);
}

static void are_the_separate_operations(void **state)
{
    (void)state;
    for (int k = 0; k < TRIALS; k++)
        for (int what = 0; what < 4; what++)
            check(&trials[k], what & 1, what & 2, k + what);
}

/* The gate of backward is y > 0 for what forward wrote, also where a value lies a last
 * bit beside 0: beta is minus one of the values. */
static void the_gate_is_y_above_zero(void **state)
{
    (void)state;
    for (int k = 0; k < 8; k++) {
        joined b =
            joined_make(k % 2 ? SBN_F64 : SBN_F32, (norm_case){64, 7, 1, 5, 0}, 132);
        sbn_norm_config cfg = joined_config(&b);
        seat plain = share(&cfg, &b, NCHW, 0);
        OK(sbn_norm_forward(plain.norm, &plain.x, &plain.y));
        cfg.relu = true;
        seat s = share(&cfg, &b, (layout)(k / 2 % 2), 0);
        bool add = k / 4;
        for (int64_t r = 0; r < s.n; r++)
            for (int64_t e = 0; e < 7 * 5; e++) {
                double y = tensor_get(&plain.y, r, e / 5, e % 5);
                double z = e % 3 == 0   ? -y
                           : e % 3 == 1 ? nextafter(-y, 9)
                                        : -y * (1 + 1e-7);
                tensor_set(&s.z, r, e / 5, e % 5, z);
            }
        seat_step(&s, add);
        int64_t open = 0;
        for (int64_t r = 0; r < s.n && add; r++)
            for (int64_t e = 0; e < 7 * 5; e++) {
                double y = tensor_get(&s.y, r, e / 5, e % 5),
                       dy = tensor_get(&s.dy, r, e / 5, e % 5),
                       dz = tensor_get(&s.dz, r, e / 5, e % 5);
                assert_true(y >= 0 && dz == (y > 0 ? dy : 0));
                open += y > 0;
            }
        assert_true(!add || s.n == 0 || (open > 0 && open < s.n * 35));
        /* dbeta is the sum of what passed */
        double mine[7] = {0}, all[7], size[7] = {0}, sizes[7];
        for (int64_t r = 0; r < s.n; r++)
            for (int64_t e = 0; e < 7 * 5; e++) {
                bool passes = tensor_get(&s.y, r, e / 5, e % 5) > 0;
                double dy = tensor_get(&s.dy, r, e / 5, e % 5);
                mine[e / 5] += passes ? dy : 0;
                size[e / 5] += fabs(dy);
            }
        MPI_Allreduce(mine, all, 7, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
        MPI_Allreduce(size, sizes, 7, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
        /* 320 additions in double, one rounding of the state */
        for (int i = 0; i < 7; i++)
            CLOSE(element(b.dtype, s.state.bias_grad, i), all[i],
                  (b.dtype == SBN_F64 ? 4e-14 : 6e-8) * sizes[i]);
        seat_free(&plain);
        seat_free(&s);
        joined_free(&b);
    }
}

/* relu does not swallow a NaN; infinities do what they do. */
static void what_is_not_finite_shows(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F32, (norm_case){32, 3, 1, 20, 0}, 133);
    for (int k = 0; k < 8; k++) {
        sbn_norm_config cfg = joined_config(&b);
        cfg.relu = k & 1;
        seat s = seat_make(&cfg, test_group, &b, (layout)(k / 2 % 2), 0, b.n);
        seat_draw_running(&s);
        if (k & 4) OK(sbn_norm_set_mode(s.norm, SBN_NORM_EVAL));
        for (int64_t j = 0; j < 20; j += 3) {
            tensor_set(&s.z, 5, 1, j, NAN);
            tensor_set(&s.z, 6, 1, j, INFINITY);
            tensor_set(&s.z, 7, 1, j, -INFINITY);
        }
        OK(sbn_norm_forward_add(s.norm, &s.x, &s.z, &s.y));
        for (int64_t r = 0; r < b.n; r++)
            for (int64_t e = 0; e < 60; e++) {
                double y = tensor_get(&s.y, r, e / 20, e % 20);
                bool set = e / 20 == 1 && e % 20 % 3 == 0;
                assert_int_equal(isnan(y) != 0, set && r == 5);
                assert_int_equal(isinf(y) != 0, set && (r == 6 || (r == 7 && !cfg.relu)));
                if (set && r == 7) assert_true(cfg.relu ? y == 0 : y < 0);
            }
        if (k & 4) { /* a NaN of x itself, where no sums would find it */
            tensor_set(&s.x, 2, 0, 3, NAN);
            OK(sbn_norm_forward(s.norm, &s.x, &s.y));
            assert_true(isnan(tensor_get(&s.y, 2, 0, 3)));
        }
        seat_free(&s);
    }
    joined_free(&b);
}

static void y_in_the_place_of_z(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F32, (norm_case){32, 3, 1, 5, 0}, 134);
    for (int k = 0; k < 8; k++) {
        sbn_norm_mode mode = (sbn_norm_mode)(k / 2);
        sbn_norm_config cfg = joined_config(&b);
        cfg.relu = k % 2;
        seat s = seat_make(&cfg, test_group, &b, NCHW, 0, b.n),
             want = seat_make(&cfg, test_group, &b, NCHW, 0, b.n);
        OK(sbn_norm_set_mode(s.norm, mode));
        OK(sbn_norm_set_mode(want.norm, mode));
        OK(sbn_norm_forward_add(want.norm, &want.x, &want.z, &want.y));
        bool reads_z = cfg.relu && (mode == SBN_NORM_TRAIN || mode == SBN_NORM_FROZEN);
        FAILS(reads_z ? SBN_E_ARG : SBN_OK,
              sbn_norm_forward_add(s.norm, &s.x, &s.z, &s.z));
        if (!reads_z) tensor_same(&s.z, &want.y, 0);
        if (!reads_z && (mode == SBN_NORM_TRAIN || mode == SBN_NORM_FROZEN)) {
            OK(sbn_norm_backward_add(s.norm, &s.dy, &s.dx, &s.dz));
            OK(sbn_norm_backward_add(want.norm, &want.dy, &want.dx, &want.dz));
            tensor_same(&s.dx, &want.dx, 0);
            tensor_same(&s.dz, &want.dz, 0);
        }
        seat_free(&s);
        seat_free(&want);
    }
    joined_free(&b);
}

static void wrong_arguments(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F32, (norm_case){8, 3, 1, 5, 0}, 135);
    for (int relu = 0; relu < 2; relu++) EACH_BAD(bad)
        {
            sbn_norm_config cfg = joined_config(&b);
            cfg.relu = relu;
            seat s = seat_make(&cfg, test_group, &b, NCHW, 0, b.n);
            bool mine = IS_BAD(bad);
            sbn_tensor few = s.z, none = s.z, rows = s.z;
            few.n--;
            none.data = NULL;
            rows.h = 5, rows.w = 1;
            sbn_tensor *wrong[] = {NULL, &few, &none, &rows};
            for (int k = 0; k < 4; k++) {
                sbn_tensor *z = mine ? wrong[k] : &s.z;
                FAILS_ON(bad, SBN_E_ARG, sbn_norm_forward_add(s.norm, &s.x, z, &s.y));
                OK(sbn_norm_forward_add_begin(s.norm, &s.x, z, &s.y));
                FAILS_ON(bad, SBN_E_ARG, sbn_norm_forward_end(s.norm));
            }
            for (int k = 1; k < 4; k++) {
                OK(sbn_norm_forward_add(s.norm, &s.x, &s.z, &s.y));
                FAILS_ON(
                    bad, SBN_E_ARG,
                    sbn_norm_backward_add(s.norm, &s.dy, &s.dx, mine ? wrong[k] : &s.dz));
            }
            FAILS_ON(bad, SBN_E_ARG,
                     sbn_norm_backward_add(s.norm, &s.dy, &s.dx, mine ? &s.dx : &s.dz));
            FAILS_ON(bad, SBN_E_ARG,
                     sbn_norm_backward_add(s.norm, &s.dy, mine ? &s.dy : &s.dx,
                                           mine ? &s.dy : &s.dz));
            OK(sbn_norm_backward_add(s.norm, &s.dy, &s.dx, &s.dz));
            OK(sbn_norm_forward(s.norm, &s.x, &s.y)); /* adds nothing */
            FAILS_ON(bad, SBN_E_ARG,
                     sbn_norm_backward_add(s.norm, &s.dy, &s.dx, mine ? &s.dz : NULL));
            OK(sbn_norm_backward_add(s.norm, &s.dy, &s.dx, NULL));
            FAILS(SBN_E_ARG, sbn_norm_forward_add(NULL, &s.x, &s.z, &s.y));
            FAILS(SBN_E_ARG, sbn_norm_backward_add(NULL, &s.dy, &s.dx, &s.dz));
            /* nor alone, without a message */
            OK(sbn_norm_set_mode(s.norm, SBN_NORM_EVAL));
            FAILS(SBN_E_ARG, sbn_norm_forward_add(s.norm, &s.x, NULL, &s.y));
            FAILS(SBN_E_ARG, sbn_norm_forward_add_begin(s.norm, &s.x, NULL, &s.y));
            seat_free(&s);
        }
    joined_free(&b);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(are_the_separate_operations),
    cmocka_unit_test(the_gate_is_y_above_zero),
    cmocka_unit_test(what_is_not_finite_shows),
    cmocka_unit_test(y_in_the_place_of_z),
    cmocka_unit_test(wrong_arguments),
};
TEST_MAIN(tests)

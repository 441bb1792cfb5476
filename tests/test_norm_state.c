/* Running statistics, evaluation, modes, and several layers in one program. */
#include "support/harness.h"
#include "support/layer.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "norm/scope.h"

enum { N = 40, C = 3, S = 4, ROW = C * S };

/* A batch, a layer and room for this process's share of y and dx. */
typedef struct setup {
    joined b;
    sbn_norm_config cfg;
    sbn_norm *norm;
    sbn_norm_state state;
    int64_t first, n;
    double y_data[N * ROW], dx_data[N * ROW];
    sbn_tensor x, dy, y, dx;
} setup;

static void take_share(setup *t, int64_t first, int64_t n)
{
    t->first = first;
    t->n = n;
    t->x = joined_view(&t->b, t->b.x, first, n);
    t->dy = joined_view(&t->b, t->b.dy, first, n);
    t->y = joined_view(&t->b, t->y_data, 0, n);
    t->dx = joined_view(&t->b, t->dx_data, 0, n);
    OK(sbn_norm_set_place(t->norm, first));
}

/* cfg: settings other than the defaults; its channels are filled in. */
static setup *begin(sbn_norm_config cfg, uint64_t seed)
{
    setup *t = calloc(1, sizeof *t);
    t->b = joined_make(cfg.dtype, (norm_case){N, C, 2, 2, cfg.norm_batch}, seed);
    cfg.channels = C;
    cfg.batch = N;
    t->cfg = cfg;
    OK(sbn_norm_create(&cfg, test_group, &t->norm));
    joined_load(&t->b, t->norm);
    t->state = sbn_norm_get_state(t->norm);
    int64_t first, n;
    sbni_scope_share(N, cfg.norm_batch, test_rank, test_size, &first, &n);
    take_share(t, first, n);
    return t;
}

static void end(setup *t)
{
    sbn_norm_destroy(&t->norm);
    assert_null(t->norm);
    joined_free(&t->b);
    free(t);
}

static sbn_norm_config settings(sbn_dtype dtype)
{
    sbn_norm_config cfg = sbn_norm_config_default(C);
    cfg.dtype = dtype;
    return cfg;
}

static void new_layer(void **state)
{
    (void)state;
    sbn_norm_config cfg = sbn_norm_config_default(C);
    assert_true(cfg.eps == 1e-5 && cfg.momentum == 0.1);
    assert_true(cfg.affine && cfg.track_running_stats && cfg.dtype == SBN_F32);
    sbn_norm *norm;
    OK(sbn_norm_create(&cfg, test_group, &norm));
    sbn_norm_state s = sbn_norm_get_state(norm);
    for (int i = 0; i < C; i++) {
        assert_true(element(SBN_F32, s.weight, i) == 1);
        assert_true(element(SBN_F32, s.bias, i) == 0);
        assert_true(element(SBN_F32, s.running_mean, i) == 0);
        assert_true(element(SBN_F32, s.running_var, i) == 1);
    }
    assert_int_equal(*s.num_batches_tracked, 0);
    sbn_norm_destroy(&norm);
    sbn_norm_destroy(&norm);
    sbn_norm_destroy(NULL);
}

/* Five steps of other batches by (9), for every momentum and both types. The variance is
 * the unbiased one and that of the whole batch, whatever the norm batch (traps 22, 23).
 */
static void trap_22_23_25_running_statistics(void **state)
{
    (void)state;
    const double momenta[] = {0.1, 0, 1, 0.3, SBN_MOMENTUM_CUMULATIVE};
    const int64_t norm_batches[] = {0, 16, 7, 40};
    for (int k = 0; k < 2 * 5 * 4; k++) {
        sbn_dtype dtype = k % 2 ? SBN_F64 : SBN_F32;
        sbn_norm_config cfg = settings(dtype);
        cfg.momentum = momenta[k / 2 % 5];
        cfg.norm_batch = norm_batches[k / 10];
        setup *t = begin(cfg, 31);
        long double mean[C] = {0}, var[C] = {1, 1, 1};
        for (int step = 1; step <= 5; step++) {
            for (int64_t e = 0; e < N * ROW; e++) t->b.x_d[e] = t->b.x_d[e] * 1.25 + 0.5;
            joined_store(&t->b);
            OK(sbn_norm_forward(t->norm, &t->x, &t->y));
            naive want = joined_naive(&t->b, cfg.eps);
            /* one rounding of the type a step, and slice sums of 64 values */
            double unit = dtype == SBN_F64 ? 100 * DBL_EPSILON : 5 * (double)FLT_EPSILON;
            for (int i = 0; i < C; i++) {
                mean[i] = naive_track(mean[i], want.mean[i], cfg.momentum, step);
                var[i] =
                    naive_track(var[i], naive_unbiased(&want, i), cfg.momentum, step);
                CLOSE(element(dtype, t->state.running_mean, i), (double)mean[i],
                      unit * (1 + fabs((double)mean[i])));
                CLOSE(element(dtype, t->state.running_var, i), (double)var[i],
                      unit * (1 + (double)var[i]));
            }
            assert_int_equal(*t->state.num_batches_tracked, step);
            naive_free(&want);
        }
        end(t);
    }
}

static void affine_off_and_not_tracked(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        sbn_norm_config cfg = settings(SBN_F64);
        cfg.affine = k % 2;
        cfg.track_running_stats = k / 2;
        setup *t = begin(cfg, 32);
        assert_int_equal(t->state.weight != NULL, cfg.affine);
        assert_int_equal(t->state.bias_grad != NULL, cfg.affine);
        assert_int_equal(t->state.running_mean != NULL, cfg.track_running_stats);
        assert_int_equal(t->state.num_batches_tracked != NULL, cfg.track_running_stats);
        OK(sbn_norm_forward(t->norm, &t->x, &t->y));
        OK(sbn_norm_backward(t->norm, &t->dy, &t->dx));
        naive want = naive_make(N, C, S);
        want.x = t->b.x_d;
        want.dy = t->b.dy_d;
        want.gamma = cfg.affine ? t->b.gamma_d : NULL;
        want.beta = cfg.affine ? t->b.beta_d : NULL;
        naive_run(&want);
        for (int64_t e = 0; e < t->n * ROW; e++) {
            int64_t at = t->first * ROW + e;
            /* 8 roundings and slice sums of 64 values */
            CLOSE(t->y_data[e], (double)want.y[at],
                  40 * DBL_EPSILON * (double)want.y_size[at]);
            CLOSE(t->dx_data[e], (double)want.dx[at],
                  40 * DBL_EPSILON * (double)want.dx_size[at]);
        }
        naive_free(&want);
        end(t);
    }
}

/* Evaluation of any share with drawn running statistics is the closed form. */
static void check_eval(setup *t)
{
    sbn_dtype dtype = t->cfg.dtype;
    double u = dtype == SBN_F64 ? DBL_EPSILON / 2 : (double)FLT_EPSILON / 2;
    for (int64_t e = 0; e < t->n * ROW; e++) {
        int64_t i = e / S % C;
        double mean = element(dtype, t->state.running_mean, i),
               var = element(dtype, t->state.running_var, i),
               x = element(dtype, t->x.data, e), d = x - mean,
               a = t->b.gamma_d[i] / sqrt(var + t->cfg.eps);
        /* difference, scale, product, sum; or, of a mean within three deviations, the
         * product and what is added to it are larger by that mean */
        bool near = dtype != SBN_F64 && mean * mean <= 9 * var;
        CLOSE(element(dtype, t->y.data, e), d * a + t->b.beta_d[i],
              4 * u * (fabs(d * a) + fabs(t->b.beta_d[i])) + 4 * DBL_EPSILON +
                  (near ? 2 * u * fabs(mean * a) : 0));
    }
}

static void eval_is_the_closed_form(void **state)
{
    (void)state;
    const int64_t norm_batches[] = {0, 16, 7};
    for (int k = 0; k < 6; k++) {
        sbn_norm_config cfg = settings(k % 2 ? SBN_F64 : SBN_F32);
        cfg.norm_batch = norm_batches[k / 2];
        setup *t = begin(cfg, 33);
        for (int i = 0; i < C; i++) {
            set_element(cfg.dtype, t->state.running_mean, i, 1.5 - i);
            set_element(cfg.dtype, t->state.running_var, i, i * 0.7);
        }
        sbn_norm_set_mode(t->norm, SBN_NORM_EVAL);
        OK(sbn_norm_forward(t->norm, &t->x, &t->y));
        check_eval(t);
        assert_int_equal(*t->state.num_batches_tracked, 0);
        assert_true(element(cfg.dtype, t->state.running_mean, 0) == 1.5);
        /* in halves, and in place */
        char *blocking = calloc(N * ROW, 8);
        memcpy(blocking, t->y_data, sizeof t->y_data);
        memset(t->y_data, 0, sizeof t->y_data);
        OK(sbn_norm_forward_begin(t->norm, &t->x, &t->y));
        OK(sbn_norm_forward_end(t->norm));
        same_bits(t->y_data, blocking, sizeof t->y_data);
        memcpy(t->y_data, t->x.data, (size_t)(t->n * ROW * sbn_dtype_bytes(cfg.dtype)));
        OK(sbn_norm_forward(t->norm, &t->y, &t->y));
        same_bits(t->y_data, blocking, sizeof t->y_data);
        free(blocking);
        end(t);
    }
}

/* Process 0 evaluates while the others do not call at all, also more samples than a
 * training batch has and from another place; nothing of backward is lost. */
static void trap_13_one_process_evaluates_alone(void **state)
{
    (void)state;
    for (int64_t m = 0; m <= 16; m += 8) {
        sbn_norm_config cfg = settings(SBN_F64);
        cfg.norm_batch = m;
        setup *t = begin(cfg, 34), *undisturbed = begin(cfg, 34);
        OK(sbn_norm_forward(undisturbed->norm, &undisturbed->x, &undisturbed->y));
        OK(sbn_norm_backward(undisturbed->norm, &undisturbed->dy, &undisturbed->dx));
        OK(sbn_norm_forward(t->norm, &t->x, &t->y));
        if (test_rank == 0) {
            int64_t n = 5 * N;
            double *many = calloc((size_t)(n * ROW), 8);
            sbn_tensor all = sbn_tensor_nchw(SBN_F64, many, n, C, 2, 2);
            sbn_norm_set_mode(t->norm, SBN_NORM_EVAL);
            OK(sbn_norm_forward(t->norm, &all, &all));
            OK(sbn_norm_forward_begin(t->norm, &all, &all));
            OK(sbn_norm_forward_end(t->norm));
            sbn_norm_set_mode(t->norm, SBN_NORM_TRAIN);
            free(many);
        }
        OK(sbn_norm_backward(t->norm, &t->dy, &t->dx));
        same_bits(t->dx_data, undisturbed->dx_data, sizeof t->dx_data);
        same_bits(t->state.weight_grad, undisturbed->state.weight_grad, C * 8);
        end(undisturbed);
        end(t);
    }
}

/* Without running statistics evaluation takes the batch's, as training does. */
static void eval_without_tracking_is_collective(void **state)
{
    (void)state;
    sbn_norm_config cfg = settings(SBN_F64);
    cfg.track_running_stats = false;
    setup *t = begin(cfg, 35);
    OK(sbn_norm_forward(t->norm, &t->x, &t->y));
    memcpy(t->dx_data, t->y_data, sizeof t->y_data);
    sbn_norm_set_mode(t->norm, SBN_NORM_EVAL);
    memcpy(t->y_data, t->x.data, (size_t)(t->n * ROW) * 8);
    OK(sbn_norm_forward(t->norm, &t->y, &t->y)); /* in place */
    same_bits(t->dx_data, t->y_data, sizeof t->y_data);
    FAILS(SBN_E_STATE, sbn_norm_backward(t->norm, &t->dy, &t->dx));
    end(t);
}

/* The mode that counts is that of the begin. */
static void mode_changes_between_halves(void **state)
{
    (void)state;
    setup *t = begin(settings(SBN_F64), 36);
    OK(sbn_norm_forward_begin(t->norm, &t->x, &t->y));
    sbn_norm_set_mode(t->norm, SBN_NORM_EVAL);
    OK(sbn_norm_forward_end(t->norm));
    assert_int_equal(*t->state.num_batches_tracked, 1);
    OK(sbn_norm_forward_begin(t->norm, &t->x, &t->y));
    sbn_norm_set_mode(t->norm, SBN_NORM_TRAIN);
    OK(sbn_norm_forward_end(t->norm));
    check_eval(t);
    assert_int_equal(*t->state.num_batches_tracked, 1);
    OK(sbn_norm_backward(t->norm, &t->dy, &t->dx));
    end(t);
}

/* Two layers of one shape, their halves interleaved, give what each gives alone. */
static void trap_18_two_layers_interleaved(void **state)
{
    (void)state;
    setup *a = begin(settings(SBN_F64), 37), *b = begin(settings(SBN_F64), 38),
          *alone = begin(settings(SBN_F64), 38);
    OK(sbn_norm_forward(alone->norm, &alone->x, &alone->y));
    OK(sbn_norm_backward(alone->norm, &alone->dy, &alone->dx));
    OK(sbn_norm_forward_begin(a->norm, &a->x, &a->y));
    OK(sbn_norm_forward_begin(b->norm, &b->x, &b->y));
    OK(sbn_norm_forward_end(b->norm));
    OK(sbn_norm_forward_end(a->norm));
    OK(sbn_norm_backward_begin(b->norm, &b->dy, &b->dx));
    OK(sbn_norm_backward_begin(a->norm, &a->dy, &a->dx));
    OK(sbn_norm_backward_end(a->norm));
    OK(sbn_norm_backward_end(b->norm));
    same_bits(b->y_data, alone->y_data, sizeof b->y_data);
    same_bits(b->dx_data, alone->dx_data, sizeof b->dx_data);
    same_bits(b->state.running_var, alone->state.running_var, C * 8);
    assert_int_not_equal(memcmp(a->state.running_var, b->state.running_var, C * 8), 0);
    end(alone);
    end(b);
    end(a);
}

/* Two forwards and one backward: counted twice, gradient of the last; backward may run
 * again, and no backward touches the running statistics. */
static void trap_21_forward_twice(void **state)
{
    (void)state;
    setup *t = begin(settings(SBN_F64), 39), *once = begin(settings(SBN_F64), 39);
    OK(sbn_norm_forward(once->norm, &once->x, &once->y));
    OK(sbn_norm_backward(once->norm, &once->dy, &once->dx));
    OK(sbn_norm_forward(t->norm, &t->dy, &t->y));
    OK(sbn_norm_forward(t->norm, &t->x, &t->y));
    assert_int_equal(*t->state.num_batches_tracked, 2);
    double mean[C], var[C];
    memcpy(mean, t->state.running_mean, sizeof mean);
    memcpy(var, t->state.running_var, sizeof var);
    for (int k = 0; k < 2; k++) {
        memset(t->dx_data, 0, sizeof t->dx_data);
        OK(sbn_norm_backward(t->norm, &t->dy, &t->dx));
        same_bits(t->dx_data, once->dx_data, sizeof t->dx_data);
        same_bits(t->state.weight_grad, once->state.weight_grad, C * 8);
        assert_int_equal(*t->state.num_batches_tracked, 2);
        same_bits(t->state.running_mean, mean, sizeof mean);
        same_bits(t->state.running_var, var, sizeof var);
    }
    end(once);
    end(t);
}

/* A batch that is smaller at the end of an epoch, and larger again. */
static void trap_12_batches_of_other_sizes(void **state)
{
    (void)state;
    const int64_t sizes[] = {40, 7, 33, 2, 40};
    for (int64_t m = 0; m <= 16; m += 16) {
        sbn_norm_config cfg = settings(SBN_F64);
        cfg.norm_batch = m;
        setup *t = begin(cfg, 40);
        for (int k = 0; k < 5; k++) {
            joined cut = t->b;
            cut.n = sizes[k];
            int64_t first, n;
            sbni_scope_share(cut.n, m, test_rank, test_size, &first, &n);
            take_share(t, first, n);
            OK(sbn_norm_forward(t->norm, &t->x, &t->y));
            OK(sbn_norm_backward(t->norm, &t->dy, &t->dx));
            naive want = joined_naive(&cut, cfg.eps);
            for (int64_t e = 0; e < n * ROW; e++)
                CLOSE(t->dx_data[e], (double)want.dx[first * ROW + e],
                      40 * DBL_EPSILON * (double)want.dx_size[first * ROW + e]);
            naive_free(&want);
        }
        end(t);
    }
}

/* A frozen layer whose y takes the place of x goes back without x, whatever became of y
 * since. */
static void frozen_in_place_reads_no_x(void **state)
{
    (void)state;
    for (int type = 0; type < 2; type++) {
        sbn_norm_config cfg = settings(type ? SBN_F64 : SBN_F32);
        cfg.affine_grad = false;
        setup *t = begin(cfg, 41);
        sbn_norm_set_mode(t->norm, SBN_NORM_FROZEN);
        OK(sbn_norm_forward(t->norm, &t->x, &t->x));
        for (int64_t e = 0; e < t->n * ROW; e++)
            set_element(cfg.dtype, t->x.data, e, NAN);
        OK(sbn_norm_backward(t->norm, &t->dy, &t->dx));
        double u = type ? DBL_EPSILON : (double)FLT_EPSILON;
        for (int64_t e = 0; e < t->n * ROW; e++) {
            double want = t->b.gamma_d[e % ROW / S] / sqrt(1 + 1e-5) *
                          element(cfg.dtype, t->dy.data, e);
            CLOSE(element(cfg.dtype, t->dx.data, e), want, 2 * u * fabs(want));
        }
        end(t);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(new_layer),
    cmocka_unit_test(trap_22_23_25_running_statistics),
    cmocka_unit_test(affine_off_and_not_tracked),
    cmocka_unit_test(eval_is_the_closed_form),
    cmocka_unit_test(trap_13_one_process_evaluates_alone),
    cmocka_unit_test(eval_without_tracking_is_collective),
    cmocka_unit_test(mode_changes_between_halves),
    cmocka_unit_test(trap_18_two_layers_interleaved),
    cmocka_unit_test(trap_21_forward_twice),
    cmocka_unit_test(trap_12_batches_of_other_sizes),
    cmocka_unit_test(frozen_in_place_reads_no_x),
};
TEST_MAIN(tests)

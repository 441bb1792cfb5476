/* Nets whose convolutions go by tiles, against the same by windows one by one, which are
 * what slices of 8 samples go by: only slices that are as long as that are tiled. */
#include "support/harness.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nn/winograd.h"
#include "support/layer.h"
#include "support/net.h"

/* Both windows, with and without dx and padding, outputs that are no multiple of a
 * tile's, dW of the first out of the dy of a pool; the last has too few channels. */
static const char *const tiled_net = "input 8x21x17\n"
                                     "conv a out=10 kernel=5\n"
                                     "maxpool size=2\n"
                                     "relu\n"
                                     "conv b out=9 kernel=3 pad=1\n"
                                     "sigmoid\n"
                                     "conv c out=8 kernel=5 pad=2\n"
                                     "sigmoid\n"
                                     "conv d out=12 kernel=3 pad=2\n"
                                     "maxpool size=2\n"
                                     "conv e out=6 kernel=3\n"
                                     "linear f out=5\n"
                                     "logsoftmax\n";
enum { TILED = 4, SHORT_SLICE = 8 };

static sbn_model *make(const char *text, int64_t batch, int64_t norm_batch,
                       sbn_dtype dtype)
{
    sbn_model_config cfg = sbn_model_config_default("test", batch);
    cfg.text = text;
    cfg.norm_batch = norm_batch;
    cfg.dtype = dtype;
    return net_make(&cfg, test_group);
}

static bool same_outputs(const sbn_model *a, const sbn_model *b, int64_t n)
{
    const sbni_edge *p = sbni_model_last(a), *q = sbni_model_last(b);
    return !memcmp(p->y, q->y, (size_t)(n * p->count * sbn_dtype_bytes(a->cfg.dtype)));
}

static int count_tiled(const sbn_model *m, int64_t n)
{
    int count = 0;
    for (int i = 0; i < m->layer_count; i++)
        count += sbni_winograd_takes(&m->layers[i], n);
    return count;
}

static int64_t slices_of(int64_t total, int64_t longest)
{
    return (total + longest - 1) / longest;
}

static double largest_of(const sbn_model_tensor *t, sbn_dtype dtype)
{
    double largest = 0;
    for (int64_t e = 0; e < t->count; e++)
        largest = fmax(largest, fabs(element(dtype, t->grad, e)));
    return largest;
}

/* Slices' gradients may have 47 bits: sums of 42 leave room for what cancels in them. */
static void refine_grid(sbn_model *m)
{
    int n;
    int64_t *exponent = sbn_model_grad_exponents(m, &n);
    const sbn_model_tensor *t = sbn_model_tensors(m, &n);
    for (int i = 0; i < n && t[i].grad; i++)
        exponent[i] = ilogb(largest_of(&t[i], m->cfg.dtype)) - 41;
}

static double gradient(sbn_model *m, const net_batch *b)
{
    sbn_model_result got;
    OK(net_gradient(m, m->cfg.dtype, b, b->n, &got));
    refine_grid(m);
    OK(net_gradient(m, m->cfg.dtype, b, b->n, &got));
    return got.loss;
}

static void check_gradients(sbn_model *a, sbn_model *b, int64_t total, double tolerance)
{
    int n;
    const sbn_model_tensor *s = sbn_model_tensors(a, &n), *t = sbn_model_tensors(b, &n);
    sbn_dtype dtype = a->cfg.dtype;
    for (int i = 0; i < n && s[i].grad; i++) {
        double within = tolerance * largest_of(&t[i], dtype) +
                        net_grid_error(a, s[i].name, slices_of(total, SBN_SLICE)) +
                        net_grid_error(b, s[i].name, slices_of(total, SHORT_SLICE));
        for (int64_t e = 0; e < t[i].count; e++)
            CLOSE(element(dtype, s[i].grad, e), element(dtype, t[i].grad, e), within);
    }
}

/* What goes by what: slices of a, all of whose windows that fit are tiled, and of b. */
static void check_slices(const sbn_model *a, const sbn_model *b, int64_t total)
{
    int tiled = a->kernels->tiles_points ? TILED : 0;
    assert_int_equal(a->slice_count, slices_of(total, SBN_SLICE));
    assert_int_equal(b->slice_count, slices_of(total, SHORT_SLICE));
    for (int64_t s = 0; s < a->slice_count; s++)
        assert_int_equal(count_tiled(a, a->slices[s].n), tiled);
    for (int64_t s = 0; s < b->slice_count; s++)
        assert_int_equal(count_tiled(b, b->slices[s].n), 0);
}

/* Largest differences: float32 1.2e-6 of a tensor's largest gradient and 1.3e-8 of the
 * loss; float64 those of the grids, and 3e-16. */
static void by_tiles_is_by_windows(void **state)
{
    (void)state;
    static const int64_t totals[] = {16, 29, 12, 61};
    for (int type = 0; type < 2; type++)
        for (size_t i = 0; i < sizeof totals / sizeof *totals; i++) {
            int64_t n = totals[i];
            sbn_dtype dtype = type ? SBN_F64 : SBN_F32;
            sbn_model *a = make(tiled_net, 64, SBN_NORM_BATCH_ALL, dtype),
                      *b = make(tiled_net, 64, SHORT_SLICE, dtype);
            net_batch batch = net_batch_make(a, n, 7);
            double loss = gradient(a, &batch);
            CLOSE(loss, gradient(b, &batch), type ? 2e-15 : 3e-8);
            check_slices(a, b, n);
            if (a->kernels->tiles_points) assert_false(same_outputs(a, b, n));
            check_gradients(a, b, n, type ? 1e-14 : 3e-6);
            net_batch_free(&batch);
            sbn_model_destroy(&a);
            sbn_model_destroy(&b);
        }
}

/* Of a slice that is too short for tiles no bit depends on its length. */
static void few_go_by_windows(void **state)
{
    (void)state;
    sbn_model *a = make(tiled_net, 16, SBN_NORM_BATCH_ALL, SBN_F64),
              *b = make(tiled_net, 16, SHORT_SLICE, SBN_F64);
    net_batch batch = net_batch_make(a, 11, 7);
    gradient(a, &batch);
    gradient(b, &batch);
    assert_int_equal(a->slice_count, 1);
    assert_int_equal(count_tiled(a, 11), 0);
    /* without the kernels dense layers are BLAS's, of all rows at once */
    if (a->kernels->tiles_points) assert_true(same_outputs(a, b, 11));
    net_batch_free(&batch);
    sbn_model_destroy(&a);
    sbn_model_destroy(&b);
}

/* Five eighths of the windows' products must be saved, or half where they are 5x5, those
 * of outputs in vain counted; what is read must fit the cache, lest it go by BLAS. */
static void layers_that_fit(void **state)
{
    (void)state;
    static const struct {
        const char *net;
        bool fits;
    } cases[] = {
        {"input 8x9x9\nconv a out=8 kernel=3\n", true},
        {"input 8x8x8\nconv a out=8 kernel=3\n", false},
        {"input 8x8x8\nconv a out=8 kernel=3 pad=1\n", true},
        {"input 8x3x3\nconv a out=8 kernel=3\n", false},
        {"input 8x9x9\nconv a out=8 kernel=5\n", true},
        {"input 8x6x6\nconv a out=8 kernel=5\n", true},
        {"input 8x5x6\nconv a out=8 kernel=5\n", false},
        {"input 8x7x9\nconv a out=8 kernel=5\n", true},
        {"input 8x9x7\nconv a out=8 kernel=5\n", false},
        {"input 8x7x7\nconv a out=8 kernel=5 pad=2\n", true},
        {"input 8x12x12\nconv a out=8 kernel=3 stride=2\n", false},
        {"input 8x12x12\nconv a out=8 kernel=7\n", false},
        {"input 8x12x12\nconv a out=8 kernel=4\n", false},
        {"input 8x12x12\nconv a out=8 kernel=1\n", false},
        {"input 7x12x12\nconv a out=8 kernel=3 pad=1\n", false},
        {"input 8x12x12\nconv a out=7 kernel=3 pad=1\n", false},
        {"input 8x60x60\nconv a out=8 kernel=3 pad=1\n", true},
        {"input 8x64x64\nconv a out=8 kernel=3 pad=1\n", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[128];
        snprintf(text, sizeof text, "%slinear b out=2\nlogsoftmax\n", cases[i].net);
        sbn_model *m = make(text, 16, SBN_NORM_BATCH_ALL, SBN_F32);
        const sbni_layer *conv = &m->layers[0];
        bool fits = cases[i].fits && m->kernels->tiles_points;
        assert_true(conv->spec.kind == SBNI_LAYER_CONV);
        assert_true(!conv->points == !fits);
        assert_true(sbni_winograd_takes(conv, 12) == fits);
        assert_false(sbni_winograd_takes(conv, 11));
        assert_null(m->layers[1].points);
        sbn_model_destroy(&m);
    }
}

/* Slices of 16, 16, 16 and 13 by one thread, and by three, which have work of their own.
 */
static void same_bits_of_any_threads(void **state)
{
    (void)state;
    int before = omp_get_max_threads(), n;
    for (int type = 0; type < 2; type++) {
        sbn_dtype dtype = type ? SBN_F64 : SBN_F32;
        omp_set_num_threads(1);
        sbn_model *a = make(tiled_net, 64, SBN_NORM_BATCH_ALL, dtype);
        net_batch batch = net_batch_make(a, 61, 7);
        double loss = gradient(a, &batch);
        omp_set_num_threads(3);
        sbn_model *b = make(tiled_net, 64, SBN_NORM_BATCH_ALL, dtype);
        assert_int_equal(b->threads, 3);
        assert_true(gradient(b, &batch) == loss);
        assert_true(same_outputs(a, b, 61));
        const sbn_model_tensor *s = sbn_model_tensors(a, &n),
                               *t = sbn_model_tensors(b, &n);
        for (int i = 0; i < n && s[i].grad; i++)
            same_bits(s[i].grad, t[i].grad, s[i].count * sbn_dtype_bytes(dtype));
        net_batch_free(&batch);
        sbn_model_destroy(&a);
        sbn_model_destroy(&b);
    }
    omp_set_num_threads(before);
}

/* Weights that change from step to step, as their windows at the points then do. */
static void differences(void **state)
{
    (void)state;
    sbn_model_config cfg = sbn_model_config_default("test", 16);
    cfg.text = "input 8x7x7\n"
               "conv a out=8 kernel=3 pad=1\n"
               "sigmoid\n"
               "conv b out=9 kernel=5 pad=2\n"
               "norm n\n"
               "sigmoid\n"
               "linear c out=3\n"
               "logsoftmax\n";
    cfg.dtype = SBN_F64;
    sbn_model *m = net_make(&cfg, test_group);
    assert_int_equal(count_tiled(m, 13), m->kernels->tiles_points ? 2 : 0);
    sbn_model_destroy(&m);
    net_differentiate(cfg, 13, 0x1p-18);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(by_tiles_is_by_windows),
    cmocka_unit_test(few_go_by_windows),
    cmocka_unit_test(layers_that_fit),
    cmocka_unit_test(same_bits_of_any_threads),
    cmocka_unit_test(differences),
};
TEST_MAIN(tests)

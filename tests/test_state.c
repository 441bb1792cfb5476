/* The state of layers in files: of a framework, of our own, there and back. */
#include "support/harness.h"
#include "support/layer.h"

#include <float.h>
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "norm/scope.h"
#include "syncbn/state.h"
#include "train/safetensors.h"

static const char golden[] = GOLDEN_DIR "/state.safetensors";

/* Below the test's folder; only process 0 knows it. */
static const char *path_of(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", test_folder(), name);
    return test_rank == 0 ? path : NULL;
}

static const sbni_st_tensor *find(const sbni_st_file *file, const char *name)
{
    const sbni_st_tensor *t = sbni_st_find(file, name);
    if (!t) fail_msg("%s is not in the file", name);
    return t;
}

static sbn_norm *make(sbn_dtype dtype, int64_t c, double momentum, sbn_group *group)
{
    sbn_norm_config cfg = sbn_norm_config_default(c);
    cfg.dtype = dtype;
    cfg.momentum = momentum;
    sbn_norm *norm;
    OK(sbn_norm_create(&cfg, group, &norm));
    return norm;
}

/* A share of the fixture's next batch (6 samples: one slice, so all on one process). */
static sbn_tensor next_x(const sbni_st_file *file, float *data)
{
    const sbni_st_tensor *x = find(file, "next.x");
    int64_t first, n;
    sbni_scope_share(x->shape[0], 0, test_rank, test_size, &first, &n);
    int64_t row = x->bytes / x->shape[0];
    memcpy(data, (const char *)x->data + first * row, (size_t)(n * row));
    return sbn_tensor_nchw(SBN_F32, data, n, x->shape[1], x->shape[2], x->shape[3]);
}

/* One further step of the fixture's layer with the momentum of a system; how far its
 * running statistics then are from the framework's, relative to the larger of these
 * and 1. */
static double step_deviation(double value, sbn_momentum_convention convention)
{
    sbni_st_file *file;
    OK(sbni_st_open(golden, &file));
    sbn_norm *norm = make(SBN_F32, 4, sbn_momentum_from(value, convention), test_group);
    OK(sbn_state_load(golden, &(sbn_state_entry){"features.1", norm, false}, 1,
                      test_group));
    float x_data[6 * 4 * 9], y_data[6 * 4 * 9];
    sbn_tensor x = next_x(file, x_data), y = x;
    y.data = y_data;
    OK(sbn_norm_forward(norm, &x, &y));
    sbn_norm_state state = sbn_norm_get_state(norm);
    const double *mean = find(file, "next.running_mean")->data,
                 *var = find(file, "next.running_var")->data;
    double most = 0;
    for (int i = 0; i < 4; i++) {
        double dm = fabs(element(SBN_F32, state.running_mean, i) - mean[i]),
               dv = fabs(element(SBN_F32, state.running_var, i) - var[i]);
        most = fmax(most, fmax(dm / fmax(1, fabs(mean[i])), dv / fmax(1, var[i])));
    }
    sbn_norm_destroy(&norm);
    sbni_st_close(&file);
    return most;
}

/* A framework's state continued: right with its own 0.1 and with 0.9 named as the weight
 * of the old value; taken for the weight of the new one, 0.9 is far off. */
static void trap_25_momentum_convention(void **state)
{
    (void)state;
    double rounding = (double)FLT_EPSILON / 2 + 16 * DBL_EPSILON;
    assert_true(step_deviation(0.1, SBN_MOMENTUM_OF_NEW) <= rounding);
    assert_true(step_deviation(0.9, SBN_MOMENTUM_OF_OLD) <= rounding);
    assert_true(step_deviation(0.9, SBN_MOMENTUM_OF_NEW) > 0.1);
}

/* What a person writes as 0.9 is the person's 0.1, to the bit. */
static void momentum_to_the_bit(void **state)
{
    (void)state;
    const double pairs[][2] = {{0.9, 0.1},     {0.99, 0.01},   {0.997, 0.003},
                               {0.9997, 3e-4}, {0.999, 0.001}, {0.95, 0.05},
                               {0, 1},         {1, 0},         {0.5, 0.5}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        assert_true(sbn_momentum_from(pairs[i][0], SBN_MOMENTUM_OF_OLD) == pairs[i][1]);
        assert_true(sbn_momentum_from(pairs[i][0], SBN_MOMENTUM_OF_NEW) == pairs[i][0]);
    }
    CLOSE(sbn_momentum_from(0.123456789, SBN_MOMENTUM_OF_OLD), 0.876543211, 1e-15);
    const double bad[] = {-0.1, 1.1, 2, -1, NAN, INFINITY};
    for (int i = 0; i < 6; i++)
        for (int k = 0; k < 2; k++) {
            sbn_norm_config cfg = sbn_norm_config_default(1);
            cfg.momentum =
                sbn_momentum_from(bad[i], k ? SBN_MOMENTUM_OF_OLD : SBN_MOMENTUM_OF_NEW);
            assert_true(isnan(cfg.momentum));
            sbn_norm *norm;
            FAILS(SBN_E_ARG, sbn_norm_create(&cfg, test_group, &norm));
        }
}

/* The framework's numbers, its evaluation, and a file without a count. */
static void trap_30_a_state_of_a_framework(void **state)
{
    (void)state;
    sbni_st_file *file;
    OK(sbni_st_open(golden, &file));
    const double *want = find(file, "next.y_eval")->data;
    for (int old = 0; old < 2; old++) {
        sbn_norm *norm = make(SBN_F32, 4, 0.1, test_group);
        sbn_norm_set_mode(norm, SBN_NORM_EVAL);
        sbn_norm_state s = sbn_norm_get_state(norm);
        *s.num_batches_tracked = 99;
        sbn_state_entry entry = {old ? "old.1" : "features.1", norm, !old};
        OK(sbn_state_load(test_rank == 0 ? golden : NULL, &entry, 1, test_group));
        assert_int_equal(entry.count_missing, old);
        assert_int_equal(*s.num_batches_tracked, old ? 0 : 5);
        same_bits(s.weight, find(file, "features.1.weight")->data, 16);
        same_bits(s.bias, find(file, "features.1.bias")->data, 16);
        same_bits(s.running_mean, find(file, "features.1.running_mean")->data, 16);
        same_bits(s.running_var, find(file, "features.1.running_var")->data, 16);
        const sbni_st_tensor *t = find(file, "next.x");
        float x_data[6 * 4 * 9], y_data[6 * 4 * 9];
        memcpy(x_data, t->data, sizeof x_data);
        sbn_tensor x = sbn_tensor_nchw(SBN_F32, x_data, 6, 4, 3, 3), y = x;
        y.data = y_data;
        OK(sbn_norm_forward(norm, &x, &y));
        for (int i = 0; i < 6 * 4 * 9; i++) /* difference, scale, product, sum */
            CLOSE((double)y_data[i], want[i],
                  4 * (double)FLT_EPSILON * (1 + fabs(want[i])));
        sbn_norm_destroy(&norm);
    }
    sbni_st_close(&file);
}

/* A layer with a batch whose share this process holds, to be trained on. */
typedef struct trainee {
    joined b;
    sbn_norm *norm;
    void *room;
    sbn_tensor x, y, dy, dx;
} trainee;

static trainee trainee_make(sbn_dtype dtype, double momentum, int64_t c)
{
    trainee t = {.b = joined_make(dtype, (norm_case){40, c, 2, 2, 0}, 60)};
    t.norm = make(dtype, c, momentum, test_group);
    int64_t first, n;
    sbni_scope_share(40, 0, test_rank, test_size, &first, &n);
    t.room = calloc((size_t)(40 * c * 4 * 2), 8);
    t.x = joined_view(&t.b, t.b.x, first, n);
    t.dy = joined_view(&t.b, t.b.dy, first, n);
    t.y = joined_view(&t.b, t.room, 0, n);
    t.dx = joined_view(&t.b, t.room, 40, n);
    return t;
}

static void trainee_free(trainee *t)
{
    sbn_norm_destroy(&t->norm);
    joined_free(&t->b);
    free(t->room);
}

/* Steps first … last-1: another batch each, gamma and beta go down their gradients. */
static void trainee_run(trainee *t, int first, int last)
{
    sbn_norm_state s = sbn_norm_get_state(t->norm);
    sbn_dtype dtype = t->b.dtype;
    for (int step = first; step < last; step++) {
        joined drawn =
            joined_make(dtype, (norm_case){40, t->b.c, 2, 2, 0}, 70 + (uint64_t)step);
        memcpy(t->b.x, drawn.x, (size_t)(40 * t->b.c * 4 * sbn_dtype_bytes(dtype)));
        joined_free(&drawn);
        OK(sbn_norm_forward(t->norm, &t->x, &t->y));
        OK(sbn_norm_backward(t->norm, &t->dy, &t->dx));
        for (int64_t i = 0; i < t->b.c; i++) {
            set_element(dtype, s.weight, i,
                        element(dtype, s.weight, i) -
                            0.01 * element(dtype, s.weight_grad, i));
            set_element(dtype, s.bias, i,
                        element(dtype, s.bias, i) -
                            0.01 * element(dtype, s.bias_grad, i));
        }
    }
}

static void same_state(const trainee *a, const trainee *b)
{
    sbn_norm_state s = sbn_norm_get_state(a->norm), t = sbn_norm_get_state(b->norm);
    int64_t bytes = a->b.c * sbn_dtype_bytes(a->b.dtype);
    same_bits(s.weight, t.weight, bytes);
    same_bits(s.bias, t.bias, bytes);
    same_bits(s.running_mean, t.running_mean, bytes);
    same_bits(s.running_var, t.running_var, bytes);
    assert_int_equal(*s.num_batches_tracked, *t.num_batches_tracked);
}

/* Save, load into new layers, go on: the bytes of the run that was not interrupted, for
 * both types in one file, also where the average depends on the count. */
static void trap_30_state_in_checkpoint(void **state)
{
    (void)state;
    const double momenta[] = {0.1, SBN_MOMENTUM_CUMULATIVE};
    for (int k = 0; k < 2; k++) {
        trainee a = trainee_make(SBN_F32, momenta[k], 3),
                b = trainee_make(SBN_F64, momenta[k], 5);
        trainee_run(&a, 0, 4);
        trainee_run(&b, 0, 4);
        sbn_state_entry saved[] = {{"a.bn", a.norm, false}, {"", b.norm, false}};
        OK(sbn_state_save(path_of("two"), saved, 2, test_group));
        trainee_run(&a, 4, 7);
        trainee_run(&b, 4, 7);
        trainee c = trainee_make(SBN_F32, momenta[k], 3),
                d = trainee_make(SBN_F64, momenta[k], 5);
        sbn_state_entry loaded[] = {{"", d.norm, true}, {"a.bn", c.norm, true}};
        OK(sbn_state_load(path_of("two"), loaded, 2, test_group));
        assert_false(loaded[0].count_missing || loaded[1].count_missing);
        trainee_run(&c, 4, 7);
        trainee_run(&d, 4, 7);
        same_state(&a, &c);
        same_state(&b, &d);
        trainee_free(&a);
        trainee_free(&b);
        trainee_free(&c);
        trainee_free(&d);
    }
}

static char *bytes_of(const char *name, long *n)
{
    FILE *f = fopen(path_of(name), "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = ftell(f);
    rewind(f);
    char *bytes = calloc((size_t)*n + 1, 1);
    assert_int_equal(fread(bytes, 1, (size_t)*n, f), *n);
    fclose(f);
    return bytes;
}

/* The file says the same whoever writes it, and has what readers of the format expect. */
static void bytes_of_a_file(void **state)
{
    (void)state;
    sbn_group *self;
    OK(sbn_group_create(MPI_COMM_SELF, &self));
    trainee a = trainee_make(SBN_F32, 0.1, 3);
    trainee_run(&a, 0, 2);
    sbn_state_entry entry = {"bn", a.norm, false};
    OK(sbn_state_save(path_of("all"), &entry, 1, test_group));
    if (test_rank == 0) {
        OK(sbn_state_save(path_of("alone"), &entry, 1, self));
        long n, m;
        char *all = bytes_of("all", &n), *alone = bytes_of("alone", &m);
        assert_int_equal(n, m);
        same_bits(all, alone, n);
        free(all);
        free(alone);
        sbni_st_file *file;
        OK(sbni_st_open(path_of("all"), &file));
        assert_int_equal(sbni_st_count(file), 5);
        const sbni_st_tensor *count = find(file, "bn.num_batches_tracked"),
                             *var = find(file, "bn.running_var");
        assert_true(count->axes == 0 && !strcmp(count->dtype, "I64"));
        assert_int_equal(*(const int64_t *)count->data, 2);
        assert_true(var->axes == 1 && var->shape[0] == 3 && !strcmp(var->dtype, "F32"));
        assert_string_equal(sbni_st_metadata(file, "format"), "pt");
        sbni_st_close(&file);
    }
    trainee_free(&a);
    sbn_group_destroy(&self);
}

/* Loading changes the state on every process and nothing else: neither the mode nor, when
 * it fails, the statistics. */
static void trap_37_loading_keeps_mode_and_statistics(void **state)
{
    (void)state;
    trainee a = trainee_make(SBN_F64, 0.1, 3), b = trainee_make(SBN_F64, 0.1, 3);
    trainee_run(&a, 0, 3);
    sbn_norm_set_mode(a.norm, SBN_NORM_EVAL);
    OK(sbn_state_save(path_of("eval"), &(sbn_state_entry){"bn", a.norm, false}, 1,
                      test_group));
    for (int mode = 0; mode < 2; mode++) {
        sbn_norm_set_mode(b.norm, mode ? SBN_NORM_EVAL : SBN_NORM_TRAIN);
        OK(sbn_state_load(path_of("eval"), &(sbn_state_entry){"bn", b.norm, false}, 1,
                          test_group));
        same_state(&a, &b);
        FAILS(test_rank == 0 ? SBN_E_IO : SBN_E_PEER,
              sbn_state_load(path_of("none"), &(sbn_state_entry){"bn", b.norm, false}, 1,
                             test_group));
        same_state(&a, &b);
        if (mode) {
            /* evaluation sends nothing: one process alone */
            if (test_rank == test_size - 1) OK(sbn_norm_forward(b.norm, &b.x, &b.y));
            assert_int_equal(*sbn_norm_get_state(b.norm).num_batches_tracked, 3);
        } else {
            OK(sbn_norm_forward(b.norm, &b.x, &b.y));
            assert_int_equal(*sbn_norm_get_state(b.norm).num_batches_tracked, 4);
        }
    }
    trainee_free(&a);
    trainee_free(&b);
}

/* Values of every element type, in layers of both types; the layer's type rounds once. */
static void element_types(void **state)
{
    (void)state;
    const double f64[] = {1.0 / 3, 2, 1e-40};
    const float f32[] = {0.25f, 3e38f, 1e-45f};
    /* 1, the largest, and the smallest; 1, -2 and 2^-133 */
    const uint16_t f16[] = {0x3c00, 0x7bff, 0x0001}, bf16[] = {0x3f80, 0xc000, 0x0001};
    const double want[4][3] = {{1, 65504, 0x1p-24},
                               {1, -2, 0x1p-133},
                               {0.25, (double)3e38f, (double)1e-45f},
                               {1.0 / 3, 2, 1e-40}};
    const sbni_st_tensor list[] = {{"running_var", "F64", 1, {3}, f64, 24},
                                   {"running_mean", "F32", 1, {3}, f32, 12},
                                   {"weight", "F16", 1, {3}, f16, 6},
                                   {"bias", "BF16", 1, {3}, bf16, 6}};
    if (test_rank == 0) OK(sbni_st_write(path_of("types"), list, 4, NULL, 0));
    for (int type = 0; type < 2; type++) {
        sbn_dtype dtype = type ? SBN_F64 : SBN_F32;
        sbn_norm *norm = make(dtype, 3, 0.1, test_group);
        sbn_state_entry entry = {"", norm, false};
        OK(sbn_state_load(path_of("types"), &entry, 1, test_group));
        assert_true(entry.count_missing);
        sbn_norm_state s = sbn_norm_get_state(norm);
        const void *arrays[] = {s.weight, s.bias, s.running_mean, s.running_var};
        for (int k = 0; k < 4; k++)
            for (int i = 0; i < 3; i++)
                assert_true(element(dtype, arrays[k], i) ==
                            (type ? want[k][i] : (double)(float)want[k][i]));
        sbn_norm_destroy(&norm);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(trap_25_momentum_convention),
    cmocka_unit_test(momentum_to_the_bit),
    cmocka_unit_test(trap_30_a_state_of_a_framework),
    cmocka_unit_test(trap_30_state_in_checkpoint),
    cmocka_unit_test(bytes_of_a_file),
    cmocka_unit_test(trap_37_loading_keeps_mode_and_statistics),
    cmocka_unit_test(element_types),
};
TEST_MAIN(tests)

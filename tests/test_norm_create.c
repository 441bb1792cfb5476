/* Settings of a layer: out of range, different between processes. */
#include "support/harness.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "syncbn/norm.h"

enum { C = 3 };

/* Layers made after a failure on some processes alone still match. */
static void check_next_layer(void)
{
    sbn_norm_config cfg = sbn_norm_config_default(C);
    float x_data[8 * C] = {1, 2, 3}, y_data[8 * C];
    sbn_tensor x = sbn_tensor_nc(SBN_F32, x_data, 8, C), y = x;
    y.data = y_data;
    sbn_norm *norm;
    OK(sbn_norm_create(&cfg, test_group, &norm));
    OK(sbn_norm_forward(norm, &x, &y));
    sbn_norm_destroy(&norm);
}

static void settings_out_of_range(void **state)
{
    (void)state;
    enum { WRONG = 12 };
    sbn_norm_config wrong[WRONG];
    for (int k = 0; k < WRONG; k++) {
        wrong[k] = sbn_norm_config_default(C);
        wrong[k].name = "conv2_bn";
    }
    wrong[0].channels = 0;
    wrong[1].channels = INT64_MAX;
    wrong[2].dtype = (sbn_dtype)9;
    wrong[3].eps = 0;
    wrong[4].eps = NAN;
    wrong[5].eps = INFINITY;
    wrong[6].momentum = 1.5;
    wrong[7].momentum = -0.5;
    wrong[8].momentum = NAN;
    wrong[9].norm_batch = -1;
    wrong[10].norm_batch = 4, wrong[10].batch = 3;
    /* a message longer than MPI can count */
    wrong[11].norm_batch = 1, wrong[11].batch = INT64_C(1) << 30;
    sbn_norm_config good = sbn_norm_config_default(C);
    EACH_BAD(bad)
    for (int k = 0; k < WRONG; k++) {
        sbn_norm *norm = (sbn_norm *)&good;
        sbn_status got =
            sbn_norm_create(IS_BAD(bad) ? &wrong[k] : &good, test_group, &norm);
        FAILS(IS_BAD(bad) ? SBN_E_ARG : SBN_E_PEER, got);
        assert_non_null(strstr(sbn_last_error(), "conv2_bn"));
        assert_null(norm);
        check_next_layer();
    }
    EACH_BAD(bad)
    {
        sbn_norm *norm = NULL;
        bool is_bad = IS_BAD(bad);
        FAILS(is_bad ? SBN_E_ARG : SBN_E_PEER,
              sbn_norm_create(is_bad ? NULL : &good, test_group, &norm));
        FAILS(is_bad ? SBN_E_ARG : SBN_E_PEER,
              sbn_norm_create(&good, test_group, is_bad ? NULL : &norm));
        FAILS(SBN_E_ARG, sbn_norm_create(&good, NULL, &norm));
    }
}

static void trap_17_settings_differ(void **state)
{
    (void)state;
    if (test_size == 1) return;
    for (int k = 0; k < 16; k++) {
        sbn_norm_config cfg = sbn_norm_config_default(C);
        cfg.batch = 8;
        if (test_rank == test_size - 1) {
            if (k == 0) cfg.channels++;
            if (k == 1) cfg.dtype = SBN_F64;
            if (k == 2) cfg.eps = 1e-3;
            if (k == 3) cfg.momentum = SBN_MOMENTUM_CUMULATIVE;
            if (k == 4) cfg.affine = false;
            if (k == 5) cfg.track_running_stats = false;
            if (k == 6) cfg.norm_batch = 8;
            if (k == 7) cfg.batch = 9;
            if (k == 8) cfg.affine_grad = false;
            if (k == 9) cfg.running = SBN_RUNNING_MEAN_OF_NORM_BATCHES;
            if (k == 10) cfg.correction = SBN_CORRECTION_RENORM;
            if (k == 11) cfg.r_max = 2;
            if (k == 12) cfg.d_max = 1;
            if (k == 13) cfg.relu = true;
            if (k == 14) cfg.second_order = true;
            if (k == 15) cfg.dtype = SBN_BF16;
        }
        sbn_norm *norm;
        FAILS(SBN_E_MISMATCH, sbn_norm_create(&cfg, test_group, &norm));
        assert_null(norm);
        assert_non_null(strstr(sbn_last_error(), "settings"));
        check_next_layer();
    }
}

static void places(void **state)
{
    (void)state;
    sbn_norm_config cfg = sbn_norm_config_default(C);
    cfg.norm_batch = 4;
    cfg.batch = 8;
    float x_data[6 * C] = {1, 2, 3}, y_data[6 * C];
    sbn_tensor x = sbn_tensor_nc(SBN_F32, x_data, 6, C), y = x;
    y.data = y_data;
    sbn_norm *norm;
    OK(sbn_norm_create(&cfg, test_group, &norm));
    FAILS(SBN_E_ARG, sbn_norm_set_place(NULL, 0));
    FAILS(SBN_E_ARG, sbn_norm_set_place(norm, -1));
    FAILS(SBN_E_ARG, sbn_norm_set_place(norm, 9));
    OK(sbn_norm_set_place(norm, 8));
    FAILS(SBN_E_ARG, sbn_norm_forward(norm, &x, &y)); /* beyond the batch */
    OK(sbn_norm_set_place(norm, 2));
    x.n = y.n = test_rank == 0 ? 6 : 0;
    OK(sbn_norm_forward(norm, &x, &y));
    sbn_norm_destroy(&norm);
}

/* Sizes and places at the end of the integers: usable or refused, never wrapped. */
static void huge_sizes(void **state)
{
    (void)state;
    sbn_norm_config cfg = sbn_norm_config_default(C);
    float x_data[6 * C] = {1, 2, 3}, y_data[6 * C], want[6 * C];
    sbn_tensor x = sbn_tensor_nc(SBN_F32, x_data, 6, C), y = x, z = x;
    y.data = want;
    z.data = y_data;
    sbn_norm *norm;
    OK(sbn_norm_create(&cfg, test_group, &norm));
    OK(sbn_norm_forward(norm, &x, &y));
    FAILS(SBN_E_ARG, sbn_norm_set_place(norm, INT64_MAX));
    FAILS(SBN_E_ARG, sbn_norm_set_place(norm, INT64_MAX - 3));
    OK(sbn_norm_set_place(norm, INT64_C(1) << 60));
    OK(sbn_norm_forward(norm, &x, &z));
    assert_memory_equal(y_data, want, sizeof want);
    sbn_norm_destroy(&norm);
    for (int k = 0; k < 3; k++) { /* one norm batch that is never full */
        cfg.batch = INT64_MAX;
        cfg.norm_batch = INT64_MAX - k * (INT64_MAX / 8);
        if (k > 0) cfg.batch = cfg.norm_batch;
        memset(y_data, 0, sizeof y_data);
        OK(sbn_norm_create(&cfg, test_group, &norm));
        OK(sbn_norm_forward(norm, &x, &z));
        assert_memory_equal(y_data, want, sizeof want);
        FAILS(SBN_E_ARG, sbn_norm_set_place(norm, INT64_MAX));
        sbn_norm_destroy(&norm);
    }
}

/* Shares follow each other, are whole slices, and cover the batch; forgotten places are
 * told from samples that belong together. */
static void shares_and_forgotten_places(void **state)
{
    (void)state;
    enum { BATCH = 64, GHOST = 40 };
    sbn_norm_config cfg = sbn_norm_config_default(1);
    cfg.dtype = SBN_F64;
    cfg.norm_batch = GHOST;
    cfg.batch = BATCH;
    sbn_norm *norm;
    OK(sbn_norm_create(&cfg, test_group, &norm));
    for (int64_t total = 0; total <= BATCH; total++) {
        int64_t first, n, starts[64] = {0}, all[64];
        OK(sbn_norm_share(norm, total, &first, &n));
        assert_true(first >= 0 && n >= 0 && first + n <= total);
        assert_true(n == 0 || first % GHOST % SBN_SLICE == 0);
        for (int64_t i = first; i < first + n; i++) starts[i] = 1;
        MPI_Allreduce(starts, all, 64, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
        for (int64_t i = 0; i < 64; i++) assert_int_equal(all[i], i < total);
    }
    int64_t first, n;
    FAILS(SBN_E_ARG, sbn_norm_share(norm, BATCH + 1, &first, &n));
    FAILS(SBN_E_ARG, sbn_norm_share(norm, -1, &first, &n));
    FAILS(SBN_E_ARG, sbn_norm_share(NULL, 1, &first, &n));

    double data[2 * GHOST] = {1, 2, 3};
    sbn_tensor x = sbn_tensor_nc(SBN_F64, data, GHOST, 1),
               y = sbn_tensor_nc(SBN_F64, data + GHOST, GHOST, 1);
    sbn_status want = test_size > 1 ? SBN_E_MISMATCH : SBN_OK;
    FAILS(want, sbn_norm_forward(norm, &x, &y)); /* all of them at place 0 */
    assert_int_equal(*sbn_norm_get_state(norm).num_batches_tracked, test_size == 1);
    if (test_size > 1) assert_non_null(strstr(sbn_last_error(), "sbn_norm_set_place"));
    sbn_norm_destroy(&norm);
}

/* 2^20 slices may be added, and one more may not, on however many processes they are;
 * constants as statistics need no sums. */
static void most_slices(void **state)
{
    (void)state;
    const int64_t most = INT64_C(1) << 24;
    for (int64_t extra = 0; extra <= SBN_SLICE; extra += SBN_SLICE) {
        sbn_norm_config cfg = sbn_norm_config_default(1);
        cfg.dtype = SBN_BF16;
        sbn_norm *norm;
        OK(sbn_norm_create(&cfg, test_group, &norm));
        int64_t first, n;
        OK(sbn_norm_share(norm, most + extra, &first, &n));
        uint16_t *data = calloc((size_t)n + 1, sizeof *data);
        assert_non_null(data);
        sbn_tensor x = sbn_tensor_nc(SBN_BF16, data, n, 1);
        OK(sbn_norm_set_mode(norm, SBN_NORM_EVAL_BATCH));
        FAILS(extra ? SBN_E_RANGE : SBN_OK, sbn_norm_forward(norm, &x, &x));
        OK(sbn_norm_set_mode(norm, SBN_NORM_EVAL));
        OK(sbn_norm_forward(norm, &x, &x));
        free(data);
        sbn_norm_destroy(&norm);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(shares_and_forgotten_places),
    cmocka_unit_test(most_slices),
    cmocka_unit_test(settings_out_of_range),
    cmocka_unit_test(trap_17_settings_differ),
    cmocka_unit_test(places),
    cmocka_unit_test(huge_sizes),
};
TEST_MAIN(tests)

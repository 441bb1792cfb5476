/* Running statistics gathered apart and merged: law of total variance over processes. */
#include "support/harness.h"
#include "support/layer.h"

#include <float.h>
#include <math.h>
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

enum { C = 5, STEPS = 4, MOST = 16 };

/* Statistics of one process, as doubles: they hold the floats exactly. */
typedef struct statistics {
    double mean[C], var[C];
    int64_t tracked;
} statistics;

static statistics read_statistics(sbn_norm *norm, sbn_dtype dtype)
{
    sbn_norm_state state = sbn_norm_get_state(norm);
    statistics s = {.tracked = *state.num_batches_tracked};
    for (int i = 0; i < C; i++) {
        s.mean[i] = element(dtype, state.running_mean, i);
        s.var[i] = element(dtype, state.running_var, i);
    }
    return s;
}

static void write_statistics(sbn_norm *norm, sbn_dtype dtype, const statistics *s)
{
    sbn_norm_state state = sbn_norm_get_state(norm);
    for (int i = 0; i < C; i++) {
        set_element(dtype, state.running_mean, i, s->mean[i]);
        set_element(dtype, state.running_var, i, s->var[i]);
    }
    *state.num_batches_tracked = s->tracked;
}

static void gather(const statistics *mine, statistics all[MOST])
{
    assert_true(test_size <= MOST);
    MPI_Allgather(mine, sizeof *mine, MPI_BYTE, all, sizeof *mine, MPI_BYTE,
                  MPI_COMM_WORLD);
}

static int same(const statistics *a, const statistics *b)
{
    return !memcmp(a, b, sizeof *a);
}

/* Every process has the same bytes, and they are the reference's on what was before. */
static void check_merged(sbn_norm *norm, sbn_dtype dtype, const statistics before[MOST])
{
    statistics mine = read_statistics(norm, dtype), all[MOST];
    gather(&mine, all);
    /* the mean is rounded once; the variance, as a double, a few times on its way */
    double once = dtype == SBN_F64 ? DBL_EPSILON / 2 : (double)FLT_EPSILON / 2,
           u = dtype == SBN_F64 ? 2 * DBL_EPSILON : once;
    for (int r = 0; r < test_size; r++) assert_true(same(&mine, &all[r]));
    for (int i = 0; i < C; i++) {
        long double mean = 0, var = 0;
        for (int r = 0; r < test_size; r++) mean += before[r].mean[i];
        mean /= test_size;
        for (int r = 0; r < test_size; r++) {
            long double d = before[r].mean[i] - mean;
            var += before[r].var[i] + d * d;
        }
        var /= test_size;
        assert_true(fabsl(mine.mean[i] - mean) <= 1.001L * once * fabsl(mean));
        CLOSE(mine.var[i], (double)var, u * (double)var);
    }
    assert_int_equal(mine.tracked, before[0].tracked);
}

static sbn_norm *make(sbn_dtype dtype, sbn_group *group)
{
    sbn_norm_config cfg = sbn_norm_config_default(C);
    cfg.dtype = dtype;
    sbn_norm *norm;
    OK(sbn_norm_create(&cfg, group, &norm));
    return norm;
}

/* Every process trains on samples of its own, with the statistics of its group. */
static void train(sbn_norm *norm, sbn_dtype dtype)
{
    int64_t n = 8 + 3 * test_rank;
    joined b = joined_make(dtype, (norm_case){n, C, 2, 2, 0}, 50 + (uint64_t)test_rank);
    void *room = calloc((size_t)(n * C * 4), 8);
    sbn_tensor x = joined_view(&b, b.x, 0, n), y = joined_view(&b, room, 0, n);
    for (int step = 0; step < STEPS; step++) {
        OK(sbn_norm_forward(norm, &x, &y));
        for (int64_t e = 0; e < n * C * 4; e++) b.x_d[e] = 1.5 * b.x_d[e] - 1;
        joined_store(&b);
    }
    free(room);
    joined_free(&b);
}

/* Whose statistics are equal: of all processes in sync, of a group's inside the group, of
 * nobody's when local. What a merge leaves is the same for all. */
static void trap_14_running_statistics_across_groups(void **state)
{
    (void)state;
    for (int k = 1; k <= test_size; k++) {
        if (test_size % k) continue;
        sbn_group *group;
        OK(sbn_group_split_size(MPI_COMM_WORLD, k, &group));
        for (int type = 0; type < 2; type++) {
            sbn_dtype dtype = type ? SBN_F64 : SBN_F32;
            sbn_norm *norm = make(dtype, group);
            train(norm, dtype);
            statistics mine = read_statistics(norm, dtype), before[MOST];
            assert_int_equal(mine.tracked, STEPS);
            gather(&mine, before);
            for (int r = 0; r < test_size; r++)
                assert_int_equal(same(&mine, &before[r]), r / k == test_rank / k);
            OK(sbn_norm_merge(norm, test_group));
            check_merged(norm, dtype, before);
            statistics merged = read_statistics(norm, dtype);
            if (k == test_size) assert_true(same(&merged, &mine));
            OK(sbn_norm_merge(norm, test_group));
            statistics again = read_statistics(norm, dtype);
            assert_true(same(&again, &merged));
            sbn_norm_destroy(&norm);
        }
        sbn_group_destroy(&group);
    }
}

/* Values that division by P, the grid's last bit or its noise would change. */
static void agreeing_statistics_stay(void **state)
{
    (void)state;
    const statistics odd = {
        {1e-30, 0.1, -3e-44, 1e17, 1.0 / 3}, {1e-42, 0, 1.0 / 3, 1e30, 4e-9}, 7};
    for (int type = 0; type < 2; type++) {
        sbn_dtype dtype = type ? SBN_F64 : SBN_F32;
        sbn_norm *norm = make(dtype, test_group);
        write_statistics(norm, dtype, &odd);
        statistics before = read_statistics(norm, dtype);
        OK(sbn_norm_merge(norm, test_group));
        statistics after = read_statistics(norm, dtype);
        assert_true(same(&before, &after));
        sbn_norm_destroy(&norm);
    }
}

/* Statistics of process (rank + shift): the order of the processes does not show. */
static void order_does_not_show(void **state)
{
    (void)state;
    for (int type = 0; type < 2; type++) {
        sbn_dtype dtype = type ? SBN_F64 : SBN_F32;
        sbn_norm *norm = make(dtype, test_group);
        statistics first = {0};
        for (int shift = 0; shift < test_size; shift++) {
            double at = (test_rank + shift) % test_size;
            statistics s = {.tracked = 2};
            for (int i = 0; i < C; i++) {
                s.mean[i] = (i - 2) * at / 3 + 1e6 * (i == 4);
                s.var[i] = 0.1 + at * at * i / 7;
            }
            write_statistics(norm, dtype, &s);
            s = read_statistics(norm, dtype);
            statistics before[MOST];
            gather(&s, before);
            OK(sbn_norm_merge(norm, test_group));
            check_merged(norm, dtype, before);
            s = read_statistics(norm, dtype);
            if (shift == 0) first = s;
            assert_true(same(&s, &first));
        }
        sbn_norm_destroy(&norm);
    }
}

/* Means apart, no variance around them: all the variance lies between the processes. */
static void variance_between_processes_is_kept(void **state)
{
    (void)state;
    sbn_norm *norm = make(SBN_F64, test_group);
    statistics s = {.tracked = 1};
    double mean = (test_size - 1) / 2.0, var = (test_size * test_size - 1) / 12.0;
    for (int i = 0; i < C; i++) s.mean[i] = test_rank;
    write_statistics(norm, SBN_F64, &s);
    OK(sbn_norm_merge(norm, test_group));
    s = read_statistics(norm, SBN_F64);
    for (int i = 0; i < C; i++) {
        CLOSE(s.mean[i], mean, 0);
        CLOSE(s.var[i], var, 2 * DBL_EPSILON * var);
    }
    sbn_norm_destroy(&norm);
}

/* A merge that has to fail on all processes: with mine on those to blame, with SBN_E_PEER
 * or `others` elsewhere; no statistics change. */
static void check_refused(sbn_norm *norm, sbn_status mine, sbn_status others, bool guilty)
{
    statistics before = read_statistics(norm, SBN_F64);
    FAILS(guilty ? mine : others, sbn_norm_merge(norm, test_group));
    statistics after = read_statistics(norm, SBN_F64);
    assert_true(same(&before, &after));
    OK(sbn_group_agree(test_group, SBN_OK));
}

static void wrong_statistics_are_refused_everywhere(void **state)
{
    (void)state;
    for (int wrong = 0; wrong < test_size; wrong++) {
        bool guilty = test_rank == wrong;
        sbn_norm *norm = make(SBN_F64, test_group);
        statistics good = read_statistics(norm, SBN_F64), s = good;
        /* too large for the sums, which one process alone does not need */
        for (int k = 0; k < (test_size > 1 ? 4 : 3); k++) {
            const double bad[] = {NAN, INFINITY, -1e-9, 0x1p111};
            s.var[3] = guilty ? bad[k] : 1;
            write_statistics(norm, SBN_F64, &s);
            check_refused(norm, k < 3 ? SBN_E_NONFINITE : SBN_E_RANGE, SBN_E_PEER,
                          guilty);
            if (k < 3) assert_non_null(strstr(sbn_last_error(), "channel 3"));
        }
        s = good;
        s.mean[0] = guilty ? -INFINITY : 0;
        write_statistics(norm, SBN_F64, &s);
        check_refused(norm, SBN_E_NONFINITE, SBN_E_PEER, guilty);
        s = good;
        s.tracked = guilty ? 5 : 4;
        write_statistics(norm, SBN_F64, &s);
        if (test_size > 1) {
            check_refused(norm, SBN_E_MISMATCH, SBN_E_MISMATCH, guilty);
            assert_non_null(strstr(sbn_last_error(), "num_batches_tracked differs"));
        }
        sbn_norm_destroy(&norm);
    }
}

static void wrong_layers_are_refused_everywhere(void **state)
{
    (void)state;
    sbn_group *self;
    OK(sbn_group_create(MPI_COMM_SELF, &self));
    for (int wrong = 0; wrong < test_size; wrong++) {
        bool guilty = test_rank == wrong;
        sbn_status missing = guilty ? SBN_E_ARG : SBN_E_PEER;
        sbn_norm_config cfg = sbn_norm_config_default(C);
        cfg.track_running_stats = !guilty;
        sbn_norm *norm, *other;
        OK(sbn_norm_create(&cfg, self, &norm));
        FAILS(missing, sbn_norm_merge(norm, test_group));
        FAILS(missing, sbn_norm_merge(guilty ? NULL : norm, test_group));
        FAILS(SBN_E_ARG, sbn_norm_merge(norm, NULL));
        cfg.track_running_stats = true;
        for (int k = 0; test_size > 1 && k < 2; k++) {
            cfg.channels = guilty && k == 0 ? C + 1 : C;
            cfg.dtype = guilty && k == 1 ? SBN_F64 : SBN_F32;
            OK(sbn_norm_create(&cfg, self, &other));
            FAILS(SBN_E_MISMATCH, sbn_norm_merge(other, test_group));
            sbn_norm_destroy(&other);
        }
        sbn_norm_destroy(&norm);
    }
    sbn_group_destroy(&self);
}

/* A forward under way would write its statistics over the merged ones. */
static void not_between_begin_and_end(void **state)
{
    (void)state;
    sbn_group *self;
    OK(sbn_group_create(MPI_COMM_SELF, &self));
    sbn_norm *norm = make(SBN_F64, self);
    double x_data[2 * C] = {1, 2, 3, 4, 5}, y_data[2 * C];
    sbn_tensor x = sbn_tensor_nc(SBN_F64, x_data, 2, C),
               y = sbn_tensor_nc(SBN_F64, y_data, 2, C);
    bool guilty = test_rank == test_size - 1;
    if (guilty) OK(sbn_norm_forward_begin(norm, &x, &y));
    check_refused(norm, SBN_E_STATE, SBN_E_PEER, guilty);
    if (guilty) OK(sbn_norm_forward_end(norm));
    if (!guilty) OK(sbn_norm_forward(norm, &x, &y));
    OK(sbn_norm_merge(norm, test_group));
    sbn_norm_destroy(&norm);
    sbn_group_destroy(&self);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(trap_14_running_statistics_across_groups),
    cmocka_unit_test(agreeing_statistics_stay),
    cmocka_unit_test(order_does_not_show),
    cmocka_unit_test(variance_between_processes_is_kept),
    cmocka_unit_test(wrong_statistics_are_refused_everywhere),
    cmocka_unit_test(wrong_layers_are_refused_everywhere),
    cmocka_unit_test(not_between_begin_and_end),
};
TEST_MAIN(tests)

/* What the group's rows say of messages: as many as MPI was handed, the right ones, and
 * who is late. */
#include "support/count_mpi.h"
#include "support/harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "comm/reduce.h"
#include "comm/traffic.h"
#include "core/clock.h"
#include "support/net.h"
#include "syncbn/data.h"
#include "syncbn/norm.h"
#include "train/evaluate.h"

enum { C = 5, ROWS = 12 };

/* A row of that name and phase; the test fails where there is none. */
static sbn_traffic find(const sbn_group *group, const char *name, const char *phase)
{
    sbn_traffic row;
    for (int i = 0; sbn_group_traffic(group, i, &row); i++)
        if (!strcmp(row.name, name) && !strcmp(row.phase, phase)) return row;
    fail_msg("no row %s %s", name, phase);
    return row;
}

static sbn_traffic total(const sbn_group *group)
{
    sbn_traffic all = {0}, row;
    for (int i = 0; sbn_group_traffic(group, i, &row); i++) {
        all.messages += row.messages;
        all.bytes += row.bytes;
        all.begin_s += row.begin_s;
        all.wait_s += row.wait_s;
    }
    return all;
}

static void start(sbn_group *group)
{
    sbn_group_clear_traffic(group);
    count_start();
}

/* All rows together hold what this process handed to MPI since start. */
static void check_total(const sbn_group *group)
{
    message_count got = count_read();
    sbn_traffic all = total(group);
    int messages = got.allreduces + got.iallreduces + got.broadcasts;
    bool alone = test_size == 1; /* MPI is asked now and then, but sends nothing */
    assert_int_equal(all.messages, alone ? 0 : messages);
    assert_int_equal(all.bytes, alone ? 0 : got.bytes);
    assert_true(all.wait_s >= 0 && all.begin_s >= 0);
    assert_true((all.messages > 0) == (all.wait_s > 0));
}

/* One message of that row and no other since start; begun: in halves. Starts anew. */
static void only(const char *name, const char *phase, bool begun)
{
    sbn_traffic row = find(test_group, name, phase);
    check_total(test_group);
    if (test_size > 1) {
        assert_int_equal(row.messages, 1);
        assert_int_equal(row.messages, total(test_group).messages);
        assert_int_equal(row.bytes, count_read().bytes);
        assert_true((row.begin_s > 0) == begun);
    }
    start(test_group);
}

static sbn_tensor filled(double *x, uint64_t seed)
{
    for (int i = 0; i < ROWS * C; i++)
        x[i] = sin((double)(seed + 1) * (i + 1 + test_rank * ROWS * C));
    return sbn_tensor_nc(SBN_F64, x, ROWS, C);
}

static sbn_norm *make_layer(const char *name)
{
    sbn_norm_config cfg = sbn_norm_config_default(C);
    sbn_norm *norm;
    cfg.dtype = SBN_F64;
    cfg.second_order = true;
    cfg.name = name;
    OK(sbn_norm_create(&cfg, test_group, &norm));
    return norm;
}

static void each_message_has_its_row(void **state)
{
    (void)state;
    double dx[ROWS * C], dy[ROWS * C], dz[ROWS * C];
    sbn_tensor x = filled(dx, 1), y = filled(dy, 2), z = filled(dz, 3);
    sbn_norm *norm = make_layer("a"), *other = make_layer("b");
    start(test_group);
    OK(sbn_norm_forward(norm, &x, &y));
    only("a", "forward", false);
    OK(sbn_norm_backward(norm, &x, &y));
    only("a", "backward", false);
    OK(sbn_norm_second_backward(norm, &x, NULL, NULL, &z, NULL, NULL));
    only("a", "second", false);
    OK(sbn_norm_forward_begin(other, &x, &y));
    OK(sbn_norm_forward_end(other));
    only("b", "forward", true);
    OK(sbn_norm_backward_begin(other, &x, &z));
    OK(sbn_norm_backward_end(other));
    only("b", "backward", true);
    OK(sbn_norm_precise_begin(norm));
    check_total(test_group);
    OK(sbn_norm_precise_add(norm, &x));
    start(test_group);
    OK(sbn_norm_precise_end(norm));
    only("a", "precise", false);
    sbn_norm_state state_of = sbn_norm_get_state(norm);
    ((double *)state_of.running_mean)[0] = test_rank;
    OK(sbn_norm_merge(norm, test_group));
    check_total(test_group);
    if (test_size > 1) assert_int_equal(find(test_group, "a", "merge").messages, 1);
    sbn_norm_destroy(&norm);
    sbn_norm_destroy(&other);
}

/* Frozen layers and evaluation send nothing, and nothing is counted. */
static void no_message_no_count(void **state)
{
    (void)state;
    double dx[ROWS * C], dy[ROWS * C];
    sbn_tensor x = filled(dx, 1), y = filled(dy, 2);
    sbn_norm *norm = make_layer("a");
    start(test_group);
    sbn_norm_set_mode(norm, SBN_NORM_FROZEN);
    OK(sbn_norm_forward(norm, &x, &y));
    OK(sbn_norm_backward(norm, &x, &y));
    sbn_norm_set_mode(norm, SBN_NORM_EVAL);
    OK(sbn_norm_forward(norm, &x, &y));
    assert_int_equal(total(test_group).messages, 0);
    sbn_norm_destroy(&norm);
}

static void failures_and_making_go_to_other(void **state)
{
    (void)state;
    start(test_group);
    sbn_status mine = test_rank == 0 ? sbni_fail(SBN_E_DATA, "bad") : SBN_OK;
    FAILS_ON(0, SBN_E_DATA, sbn_group_agree(test_group, mine));
    sbn_norm *norm = make_layer("a");
    check_total(test_group);
    sbn_norm_destroy(&norm);
    sbn_traffic last, other = find(test_group, "other", "");
    assert_int_equal(other.messages, total(test_group).messages);
    int n = 0;
    while (sbn_group_traffic(test_group, n, &last)) n++;
    OK(sbn_group_traffic(test_group, n - 1, &last) ? SBN_OK : SBN_E_ARG);
    assert_string_equal(last.name, "other");
    assert_false(sbn_group_traffic(test_group, -1, &last));
    assert_false(sbn_group_traffic(test_group, n + 1, &last));
}

/* A row outlives its layer and goes on with the next of its name. */
static void rows_are_of_names(void **state)
{
    (void)state;
    double dx[ROWS * C], dy[ROWS * C];
    sbn_tensor x = filled(dx, 1), y = filled(dy, 2);
    int n = 0;
    for (int k = 0; k < 3; k++) {
        char name[8] = "again";
        sbn_norm *norm = make_layer(name);
        memset(name, 'x', 5); /* the caller's text is copied */
        if (k == 0) start(test_group);
        OK(sbn_norm_forward(norm, &x, &y));
        sbn_norm_destroy(&norm);
        int rows = 0;
        sbn_traffic row;
        while (sbn_group_traffic(test_group, rows, &row)) rows++;
        if (k == 0) n = rows;
        assert_int_equal(rows, n);
    }
    assert_int_equal(find(test_group, "again", "forward").messages,
                     test_size > 1 ? 3 : 0);
    /* another group of the same processes has rows of its own */
    sbn_group *group;
    OK(sbn_group_create(MPI_COMM_WORLD, &group));
    assert_int_equal(total(group).messages, test_size > 1);
    sbn_group_destroy(&group);
}

/* Steps of a whole model: each norm layer one message each way, the gradients' in rows of
 * their own, evaluation's in one that outlives its messages. */
static void steps_of_a_model(void **state)
{
    (void)state;
    enum { BATCH = 48, STEPS = 4, TESTED = 70 };
    sbn_group *group;
    OK(sbn_group_create(MPI_COMM_WORLD, &group));
    sbn_model_config cfg = sbn_model_config_default("cnn", BATCH);
    sbn_model *model = net_make(&cfg, group);
    net_batch b = net_batch_make(model, BATCH, 3);
    sbn_dataset_info info;
    sbn_dataset *data;
    int64_t bytes;
    OK(sbn_dataset_probe("synthetic", SBN_SPLIT_TEST, &info, &bytes));
    OK(sbn_dataset_create("synthetic", SBN_SPLIT_TEST, &info, NULL, 1, &data));
    sbn_model_result got;
    OK(net_gradient(model, SBN_F32, &b, BATCH, &got)); /* exponents settle */
    start(group);
    for (int k = 0; k < STEPS; k++) OK(net_gradient(model, SBN_F32, &b, BATCH, &got));
    check_total(group);
    int all = test_size > 1 ? STEPS : 0;
    int64_t norms = 0, gradients = 0;
    static const char *const names[] = {"conv2_bn", "dense1_bn"};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(find(group, names[i], "forward").messages, all);
        assert_int_equal(find(group, names[i], "backward").messages, all);
        norms += 2 * all;
    }
    sbn_traffic row;
    for (int i = 0; sbn_group_traffic(group, i, &row); i++)
        if (!strcmp(row.phase, "gradients")) gradients += row.messages;
    assert_true(gradients >= all && gradients % STEPS == 0);
    assert_int_equal(norms + gradients, total(group).messages);
    for (int k = 1; k <= 2; k++) {
        OK(sbni_evaluate(model, data, TESTED, group, &got));
        assert_int_equal(find(group, "model", "evaluation").messages,
                         test_size > 1 ? k : 0);
    }
    check_total(group);
    sbn_dataset_destroy(&data);
    net_batch_free(&b);
    sbn_model_destroy(&model);
    sbn_group_destroy(&group);
}

static void be_late(double seconds)
{
    double until_s = sbni_clock_s() + seconds;
    while (sbni_clock_s() < until_s) nanosleep(&(struct timespec){0, 500000}, NULL);
}

/* The process that comes late, time after time, is the one that waits least. */
static void the_late_process_is_named(void **state)
{
    (void)state;
    enum { TIMES = 8 };
    double dx[ROWS * C], dy[ROWS * C];
    sbn_tensor x = filled(dx, 1), y = filled(dy, 2);
    if (test_size == 1) skip();
    for (int late = 0; late < test_size; late++) {
        sbn_group *group;
        OK(sbn_group_create(MPI_COMM_WORLD, &group));
        sbn_norm_config cfg = sbn_norm_config_default(C);
        sbn_norm *norm;
        cfg.dtype = SBN_F64;
        OK(sbn_norm_create(&cfg, group, &norm));
        start(group);
        for (int k = 0; k < TIMES; k++) {
            if (test_rank == late) be_late(0.02);
            if (late % 2) {
                OK(sbn_norm_forward(norm, &x, &y));
            } else {
                OK(sbn_norm_forward_begin(norm, &x, &y));
                OK(sbn_norm_forward_end(norm));
            }
        }
        double mine_s = find(group, "norm", "forward").wait_s;
        sbni_traffic_report report;
        OK(sbni_traffic_report_make(group, &report));
        assert_int_equal(report.n, 1);
        assert_int_equal(report.rows[0].messages, TIMES);
        if (test_rank == 0) {
            sbni_traffic_summary s = sbni_traffic_summarize(&report, 0);
            assert_int_equal(s.slowest, late);
            assert_true(s.most != late && s.wait_most_s >= s.wait_mean_s);
            assert_true(sbni_traffic_wait_s(&report, 0, late) < s.wait_mean_s);
            assert_true(sbni_traffic_wait_s(&report, 0, 0) == mine_s);
            assert_true((sbni_traffic_begin_s(&report, 0, test_size - 1) > 0) ==
                        (late % 2 == 0));
            assert_true(s.predicted_s > 0 && s.measured_s * TIMES >= s.wait_mean_s);
        }
        assert_false(count_read().mixed); /* nor do the measured lengths meet */
        sbni_traffic_report_free(&report);
        sbn_norm_destroy(&norm);
        sbn_group_destroy(&group);
    }
}

static void reports_of_nothing(void **state)
{
    (void)state;
    sbn_group *group;
    sbni_traffic_report report;
    OK(sbn_group_create(MPI_COMM_WORLD, &group));
    start(group);
    OK(sbni_traffic_report_make(group, &report));
    assert_int_equal(report.n, 0);
    assert_int_equal(report.size, test_size);
    sbni_traffic_report_free(&report);
    sbni_traffic_report_free(&report);
    sbn_group_destroy(&group);
}

/* Rows that differ would be read as each other's: an error on all, and nobody waits. */
static void rows_that_differ(void **state)
{
    (void)state;
    if (test_size == 1) skip();
    for (int how = 0; how < 3; how++) {
        sbn_group *group;
        sbni_traffic *row;
        sbni_traffic_report report;
        bool odd = test_rank == test_size - 1;
        OK(sbn_group_create(MPI_COMM_WORLD, &group));
        OK(sbni_traffic_row(group, odd && how == 0 ? "x" : "a", "forward", &row));
        for (int k = 0; k < 2 + (odd && how == 1); k++)
            sbni_traffic_count(row, odd && how == 2 ? 16 : 24);
        FAILS(SBN_E_MISMATCH, sbni_traffic_report_make(group, &report));
        sbni_traffic_report_free(&report);
        OK(sbn_group_agree(group, SBN_OK));
        sbn_group_destroy(&group);
    }
}

static void lines(void **state)
{
    (void)state;
    double bytes[] = {64, 512, 4096, 32768, 262144}, seconds[5];
    for (int i = 0; i < 5; i++) seconds[i] = 2e-6 + 3e-10 * bytes[i];
    sbni_line line = sbni_line_fit(bytes, seconds, 5);
    CLOSE(line.latency_s, 2e-6, 1e-15);
    CLOSE(line.s_per_byte, 3e-10, 1e-18);
    /* errors count relative to the time: a slow large message bends little */
    seconds[4] *= 1.1;
    line = sbni_line_fit(bytes, seconds, 5);
    assert_true(fabs(line.latency_s - 2e-6) < 2e-7);
    /* falling times have no bandwidth, times without latency none below 0 */
    line = sbni_line_fit((double[]){8, 80}, (double[]){3e-6, 2e-6}, 2);
    assert_true(line.s_per_byte == 0 && line.latency_s > 2e-6 && line.latency_s < 3e-6);
    line = sbni_line_fit((double[]){8, 80}, (double[]){1e-6, 2e-5}, 2);
    assert_true(line.latency_s == 0 && line.s_per_byte > 1e-7);
    line = sbni_line_fit((double[]){8}, (double[]){3e-6}, 1);
    assert_true(line.s_per_byte == 0);
    CLOSE(line.latency_s, 3e-6, 1e-18);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(each_message_has_its_row),
    cmocka_unit_test(no_message_no_count),
    cmocka_unit_test(failures_and_making_go_to_other),
    cmocka_unit_test(rows_are_of_names),
    cmocka_unit_test(steps_of_a_model),
    cmocka_unit_test(the_late_process_is_named),
    cmocka_unit_test(reports_of_nothing),
    cmocka_unit_test(rows_that_differ),
    cmocka_unit_test(lines),
};

/* What MPI is given is counted, so all sums go by MPI. */
int main(int argc, char **argv)
{
    setenv("SBN_SUMS", "mpi", 1);
    return test_run(argc, argv, tests, sizeof tests / sizeof *tests);
}

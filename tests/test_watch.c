/* A watch tells who stands still, who is missing, and nobody else. */
#include "support/harness.h"

#include <inttypes.h>
#include <mpi.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "comm/call.h"
#include "comm/group.h"
#include "comm/reduce.h"
#include "comm/watch.h"
#include "core/text.h"
#include "syncbn/norm.h"

/* Long beside the time that a process may be kept from running on a busy machine. */
static const double limit_s = 0.4;

/* What the handler was told; under a lock, as it runs in a thread of its own. */
static struct {
    int calls, spoken;
    int64_t call, step;
    double waited_s;
    char what[64], text[1024];
} told;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void note(const sbn_stall *stall, void *context)
{
    assert_ptr_equal(context, &told);
    pthread_mutex_lock(&lock);
    told.calls++;
    told.spoken += stall->speaks;
    told.call = stall->call;
    told.step = stall->step;
    told.waited_s = stall->waited_s;
    snprintf(told.what, sizeof told.what, "%s", stall->what);
    snprintf(told.text, sizeof told.text, "%s", stall->text);
    pthread_mutex_unlock(&lock);
}

static int all_processes(int mine)
{
    int sum;
    MPI_Allreduce(&mine, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    return sum;
}

static sbn_watch *begin(void)
{
    sbn_watch *watch;
    memset(&told, 0, sizeof told);
    OK(sbn_watch_create(test_group, limit_s, note, &told, &watch));
    return watch;
}

static void wrong_arguments(void **state)
{
    (void)state;
    sbn_watch *watch, *second;
    FAILS(SBN_E_ARG, sbn_watch_create(NULL, 1, note, NULL, &watch));
    EACH_BAD(bad)
    {
        bool is_bad = IS_BAD(bad);
        FAILS_ON(bad, SBN_E_ARG,
                 sbn_watch_create(test_group, 1, note, NULL, is_bad ? NULL : &watch));
        FAILS_ON(bad, SBN_E_ARG,
                 sbn_watch_create(test_group, 1, is_bad ? NULL : note, NULL, &watch));
        assert_null(watch);
        FAILS_ON(bad, SBN_E_ARG,
                 sbn_watch_create(test_group, is_bad ? -1 : 1, note, NULL, &watch));
    }
    sbn_watch_destroy(NULL);
    sbn_watch_destroy(&watch);
    sbn_watch_set_limit(NULL, 1);
    sbn_watch_set_step(NULL, 1);
    sbn_watch_enter(NULL, "x");
    sbn_watch_leave(NULL);
    watch = begin();
    if (test_size > 1)
        FAILS(SBN_E_STATE, sbn_watch_create(test_group, 1, note, NULL, &second));
    sbn_watch_destroy(&watch);
    assert_null(watch);
    assert_null(test_group->watch);
    /* again, and ending behind its group */
    sbn_group *group;
    OK(sbn_group_create(MPI_COMM_WORLD, &group));
    OK(sbn_watch_create(group, 1, note, NULL, &watch));
    sbn_group_destroy(&group);
    sbn_watch_enter(watch, "a call of the program");
    sbn_watch_leave(watch);
    sbn_watch_destroy(&watch);
}

/* A layer whose statistics process `late` sends later than the others. */
static void forward(sbn_norm *norm, int late, double late_s)
{
    float x[8] = {1, 2, 3, 4, 5, 6, 7, 8}, y[8];
    sbn_tensor vx = sbn_tensor_nc(SBN_F32, x, 4, 2), vy = sbn_tensor_nc(SBN_F32, y, 4, 2);
    if (test_rank == late) test_sleep(late_s);
    OK(sbn_norm_forward(norm, &vx, &vy));
}

static sbn_norm *layer(const char *name)
{
    sbn_norm_config cfg = sbn_norm_config_default(2);
    sbn_norm *norm;
    cfg.name = name;
    OK(sbn_norm_create(&cfg, test_group, &norm));
    return norm;
}

/* Each process in turn: the line names layer, phase, call, step and the process; one of
 * the others speaks, the late one hears nothing. */
static void a_late_process_is_named(void **state)
{
    (void)state;
    if (test_size == 1) return;
    for (int late = 0; late < test_size; late++) {
        sbn_watch *watch = begin();
        sbn_norm *norm = layer("bn7");
        sbn_watch_set_step(watch, 41 + late);
        forward(norm, -1, 0);
        forward(norm, late, 2.3 * limit_s);
        sbn_norm_destroy(&norm);
        sbn_watch_destroy(&watch);
        assert_int_equal(all_processes(told.spoken > 0), 1);
        if (test_rank == late) assert_int_equal(told.calls, 0);
        if (!told.spoken) continue;
        char want[64];
        snprintf(want, sizeof want, "bn7 forward (call 2, step %d): process %d",
                 41 + late, test_rank);
        assert_ptr_equal(strstr(told.text, want), told.text);
        snprintf(want, sizeof want, " for process %d, at work since bn7 forward (call 1)",
                 late);
        if (!strstr(told.text, want)) fail_msg("%s", told.text);
        assert_string_equal(told.what, "bn7 forward");
        assert_int_equal(told.call, 2);
        assert_int_equal(told.step, 41 + late);
        assert_true(told.waited_s > limit_s && told.waited_s < 2 * limit_s);
    }
}

/* As late as may be, many times over; and any time at work outside of collectives. */
static void patience(void **state)
{
    (void)state;
    sbn_watch *watch = begin();
    sbn_norm *norm = layer("bn");
    for (int late = 0; late < test_size; late++) {
        forward(norm, late, 0.8 * limit_s);
        if (test_rank == late) test_sleep(0.5 * limit_s);
    }
    if (test_size == 1) test_sleep(2 * limit_s);
    if (test_rank == 0) test_sleep(1.5 * limit_s); /* at work alone */
    OK(sbni_group_agree_asleep(test_group, SBN_OK));
    sbn_watch_set_limit(watch, 0); /* for ever */
    forward(norm, test_size - 1, 1.5 * limit_s);
    sbn_watch_set_limit(watch, limit_s);
    for (int i = 0; i < 100; i++) forward(norm, -1, 0);
    test_sleep(1.5 * limit_s);
    sbn_norm_destroy(&norm);
    sbn_watch_destroy(&watch);
    assert_int_equal(told.calls, 0);
}

/* What was begun and is not waited for does not count; then it is this one that does, not
 * what was begun behind it. */
static void split_calls(void **state)
{
    (void)state;
    if (test_size == 1) return;
    sbn_watch *watch = begin();
    sbni_reduce a, b;
    OK(sbni_reduce_create(test_group, 5, &a));
    OK(sbni_reduce_create(test_group, 7, &b));
    OK(sbni_reduce_label(&a, "a", "gradients"));
    OK(sbni_reduce_label(&b, "b", "gradients"));
    OK(sbni_reduce_connect(&a));
    OK(sbni_reduce_connect(&b));
    sbni_reduce_clear(&a, 1);
    sbni_reduce_clear(&b, 2);
    int late = test_size - 1;
    if (test_rank == late) test_sleep(2 * limit_s);
    OK(sbni_reduce_begin(&a));
    OK(sbni_reduce_begin(&b));
    if (test_rank != late) test_sleep(1.2 * limit_s);
    pthread_mutex_lock(&lock);
    assert_int_equal(told.calls, 0);
    pthread_mutex_unlock(&lock);
    if (test_rank == late) test_sleep(1.5 * limit_s);
    OK(sbni_reduce_end(&a));
    OK(sbni_reduce_end(&b));
    sbni_reduce_destroy(&a);
    sbni_reduce_destroy(&b);
    sbn_watch_destroy(&watch);
    if (told.calls) assert_string_equal(told.what, "a gradients");
}

/* A collective of the program's own, and one that came to another in its place. */
static void calls_of_the_program(void **state)
{
    (void)state;
    if (test_size == 1) return;
    sbn_watch *watch = begin();
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank > 0)
        sbn_watch_enter(watch, "reading the list");
    else
        sbn_watch_enter(watch, "writing the list");
    test_sleep(2.3 * limit_s);
    sbn_watch_leave(watch);
    sbn_watch_destroy(&watch);
    assert_int_equal(all_processes(told.spoken) > 0, 1);
    if (!told.spoken) return;
    if (test_rank > 0)
        assert_non_null(
            strstr(told.text, "for process 0, which waits in writing the list"));
    else
        assert_non_null(
            strstr(told.text, "for process 1, which waits in reading the list"));
}

static void lists_of_processes(void **state)
{
    (void)state;
    static const struct {
        uint8_t in[12];
        const char *want;
    } cases[] = {{{0, 0, 1}, "process 2"},
                 {{1, 1}, "processes 0, 1"},
                 {{1, 1, 1, 0, 0, 1, 0, 1, 1, 1, 1, 1}, "processes 0-2, 5, 7-11"}};
    char text[64];
    for (int i = 0; i < 3; i++) {
        sbni_text_processes(cases[i].in, 12, text, sizeof text);
        assert_string_equal(text, cases[i].want);
    }
    sbni_text_processes(cases[2].in, 12, text, 21);
    assert_string_equal(text, "processes 0-2, …");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(wrong_arguments),
    cmocka_unit_test(a_late_process_is_named),
    cmocka_unit_test(patience),
    cmocka_unit_test(split_calls),
    cmocka_unit_test(calls_of_the_program),
    cmocka_unit_test(lists_of_processes),
};
TEST_MAIN(tests)

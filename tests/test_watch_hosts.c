/* A watch over processes of two hosts: that of the missing process tells, the other one
 * leaves it the time to. */
#include "support/harness.h"

#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "comm/group.h"
#include "comm/watch.h"
#include "syncbn/watch.h"

static const double limit_s = 0.6, PATIENCE_S = 3;

/* In the place of MPI's: processes 0 and 1 are one host, 2 and 3 another. */
__attribute__((visibility("default"))) int
MPI_Comm_split_type(MPI_Comm comm, int type, int key, MPI_Info info, MPI_Comm *host)
{
    int rank;
    PMPI_Comm_rank(comm, &rank);
    return type == MPI_COMM_TYPE_SHARED && info == MPI_INFO_NULL
               ? PMPI_Comm_split(comm, rank / 2, key, host)
               : MPI_ERR_ARG;
}

/* Of the watch's thread; read once that has ended. */
static struct {
    int calls;
    bool speaks;
    double waited_s;
    char text[1024];
} told;

/* To be woken by whom a watch calls; 0: nobody. */
static pid_t asleep[4];

/* What comes later than the first is of no interest: the program would have ended. */
static void note(const sbn_stall *stall, void *context)
{
    (void)context;
    for (int i = 0; i < 4; i++)
        if (asleep[i]) kill(asleep[i], SIGCONT);
    if (told.calls++ > 0) return;
    told.speaks = stall->speaks;
    told.waited_s = stall->waited_s;
    snprintf(told.text, sizeof told.text, "%s", stall->text);
}

static sbn_watch *begin(void)
{
    sbn_watch *watch;
    memset(&told, 0, sizeof told);
    OK(sbn_watch_create(test_group, limit_s, note, NULL, &watch));
    return watch;
}

static void wait_in(sbn_watch *watch, const char *what, double s)
{
    sbn_watch_enter(watch, what);
    test_sleep(s);
    sbn_watch_leave(watch);
}

/* Process 3 is late; process 0 has all of what it waits for in a first call, and process
 * 1, which has not, is no more to blame than 0 itself. */
static void who_waits_in_turn_is_not_missed(void **state)
{
    (void)state;
    sbn_watch *watch = begin();
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == 0) {
        wait_in(watch, "one", 0);
        wait_in(watch, "two", PATIENCE_S);
    } else if (test_rank < 3) {
        wait_in(watch, "one", PATIENCE_S);
    } else {
        test_sleep(PATIENCE_S);
    }
    sbn_watch_destroy(&watch);
    if (test_rank == 3) assert_int_equal(told.calls, 0);
    if (test_rank == 2) {
        assert_true(told.speaks);
        assert_true(told.waited_s < limit_s + 0.3);
        assert_non_null(strstr(told.text, " for process 3, in no collective so far; not "
                                          "known of processes 0, 1 on "));
    }
    if (test_rank < 2) {
        assert_true(told.calls > 0);
        assert_true(told.waited_s > limit_s + 0.7);
        assert_non_null(strstr(told.text, test_rank == 0
                                              ? " for process 1, which waits in one"
                                              : " for some of: processes 2, 3 on "));
    }
}

/* One that is at work is missed where it is; the other host tells of its own alone. */
static void who_is_at_work_is_missed(void **state)
{
    (void)state;
    sbn_watch *watch = begin();
    MPI_Barrier(MPI_COMM_WORLD);
    wait_in(watch, "one", 0);
    if (test_rank != 1)
        wait_in(watch, "two", PATIENCE_S);
    else
        test_sleep(PATIENCE_S);
    sbn_watch_destroy(&watch);
    if (test_rank == 0) {
        assert_true(told.speaks);
        assert_true(told.waited_s < limit_s + 0.3);
        assert_non_null(strstr(told.text, " for process 1, at work since one (call 1)"));
    } else if (test_rank == 1) {
        assert_int_equal(told.calls, 0);
    } else {
        assert_true(told.calls > 0);
        assert_true(told.waited_s > limit_s + 0.7);
        assert_non_null(strstr(told.text, " for some of: processes 0, 1 on "));
    }
}

/* Until the other host is heard of, for the watches of both to know that it can be. */
static void hear_of_each_other(const sbn_watch *watch)
{
    _Atomic uint64_t *heard = &watch->board.heard[test_rank < 2 ? 2 : 0];
    for (int i = 0; i < 1000 && atomic_load(heard) == 0; i++) test_sleep(0.01);
    assert_true(atomic_load(heard) > 0);
    MPI_Barrier(MPI_COMM_WORLD);
}

/* What may take any time may, while its host gives signs of life. */
static void who_works_for_long_is_not_lost(void **state)
{
    (void)state;
    for (int busy = 0; busy < 2; busy++) {
        sbn_watch *watch = begin();
        hear_of_each_other(watch);
        if (test_rank / 2 == busy) test_sleep(PATIENCE_S);
        OK(sbni_group_agree_asleep(test_group, SBN_OK));
        sbn_watch_destroy(&watch);
        assert_int_equal(told.calls, 0);
    }
}

/* A host all of whose processes stop: here until the other one tells. */
static void a_host_without_a_sign_of_life_is_lost(void **state)
{
    (void)state;
    pid_t pids[4], mine = getpid();
    MPI_Allgather(&mine, sizeof mine, MPI_BYTE, pids, sizeof mine, MPI_BYTE,
                  MPI_COMM_WORLD);
    for (int lost = 0; lost < 2; lost++) {
        bool stops = test_rank / 2 == lost;
        sbn_watch *watch = begin();
        hear_of_each_other(watch);
        for (int i = 0; i < 4; i++) asleep[i] = i / 2 == lost && !stops ? pids[i] : 0;
        if (stops) raise(SIGSTOP);
        OK(sbni_group_agree_asleep(test_group, SBN_OK));
        sbn_watch_destroy(&watch);
        int speakers = told.calls > 0 && told.speaks;
        MPI_Allreduce(MPI_IN_PLACE, &speakers, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
        assert_int_equal(speakers, 1);
        if (stops) assert_int_equal(told.calls, 0);
        if (stops || told.calls == 0) continue;
        assert_true(told.waited_s > limit_s + 0.5);
        assert_true(told.waited_s < limit_s + 1.6);
        assert_non_null(strstr(told.text, lost == 0 ? " for processes 0, 1 on "
                                                    : " for processes 2, 3 on "));
        assert_non_null(strstr(told.text, ", without a sign of life"));
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(who_waits_in_turn_is_not_missed),
    cmocka_unit_test(who_is_at_work_is_missed),
    cmocka_unit_test(who_works_for_long_is_not_lost),
    cmocka_unit_test(a_host_without_a_sign_of_life_is_lost),
};
TEST_MAIN(tests)

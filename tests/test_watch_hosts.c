/* A watch over processes of two hosts: that of the missing process tells, the other one
 * leaves it the time to. */
#include "support/harness.h"

#include <mpi.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "comm/call.h"
#include "comm/group.h"
#include "comm/watch.h"
#include "syncbn/watch.h"

static const double limit_s = 1.2, PATIENCE_S = 4;

/* In the place of MPI's: processes 0 and 1 are one host, 2 and 3 another; or each is. */
static int per_host = 2;
__attribute__((visibility("default"))) int
MPI_Comm_split_type(MPI_Comm comm, int type, int key, MPI_Info info, MPI_Comm *host)
{
    int rank;
    PMPI_Comm_rank(comm, &rank);
    return type == MPI_COMM_TYPE_SHARED && info == MPI_INFO_NULL
               ? PMPI_Comm_split(comm, rank / per_host, key, host)
               : MPI_ERR_ARG;
}

/* Of the watch's thread; but for the first, read once that has ended. */
static atomic_bool was_told;
static struct {
    int calls;
    bool speaks;
    double waited_s;
    char text[1024];
} told;

/* What comes later than the first is of no interest: the program would have ended. */
static void note(const sbn_stall *stall, void *context)
{
    (void)context;
    atomic_store(&was_told, true);
    if (told.calls++ > 0) return;
    told.speaks = stall->speaks;
    told.waited_s = stall->waited_s;
    snprintf(told.text, sizeof told.text, "%s", stall->text);
}

static sbn_watch *begin(void)
{
    sbn_watch *watch;
    memset(&told, 0, sizeof told);
    was_told = false;
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

/* Until the other hosts are heard of, for the watches of both to know that it can be. */
static void hear_of_each_other(const sbn_watch *watch)
{
    int first = watch->board.leader[test_rank];
    for (int r = per_host; r < test_size; r += per_host) {
        _Atomic uint64_t *heard = &watch->board.heard[first == 0 ? r : 0];
        for (int i = 0; i < 1000 && atomic_load(heard) == 0; i++) test_sleep(0.01);
        assert_true(atomic_load(heard) > 0);
    }
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

static char state_of(pid_t pid)
{
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%*d (%*[^)]) %c", &state), 1);
    fclose(f);
    return state;
}

static void wake(pid_t pid)
{
    while (state_of(pid) != 'T') test_sleep(0.001);
    assert_int_equal(kill(pid, SIGCONT), 0);
}

/* Signs of life that are none: of another group, of who is not the first of a host, of
 * nobody, and a part of one. */
static void forge(const sbn_watch *watch)
{
    const sbni_beacon *b = &watch->beacon;
    struct {
        uint64_t token;
        int32_t rank, lost;
    } signs[] = {{b->token + 1, 2, -1}, {b->token, 1, -1},       {b->token, 0, -1},
                 {b->token, -1, -1},    {b->token, 1 << 30, -1}, {b->token, 2, -1}};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    assert_true(fd >= 0);
    for (int i = 0; i < 6; i++)
        for (int a = 0; a < b->addresses; a++)
            assert_true(sendto(fd, &signs[i], i < 5 ? sizeof signs[i] : 15, 0,
                               (const struct sockaddr *)&b->address[a],
                               sizeof b->address[a]) > 0);
    close(fd);
}

/* Until the watch calls, or in vain. */
static void wait_for_as_long_as_it_takes(const sbn_watch *watch, bool forges)
{
    OK(sbni_call_enter_long(test_group, "agreement"));
    for (int i = 0; i < 600 && !atomic_load(&was_told); i++) {
        if (forges) forge(watch);
        test_sleep(0.01);
    }
    sbni_call_goes_on(test_group);
}

/* The waker goes on when all that wait have been told: who is back is not missed. */
static void meet(int waker, const bool *waits)
{
    if (test_rank != waker) {
        MPI_Send(NULL, 0, MPI_BYTE, waker, 0, MPI_COMM_WORLD);
        return;
    }
    for (int r = 0; r < test_size; r++)
        if (waits[r] && r != waker)
            MPI_Recv(NULL, 0, MPI_BYTE, r, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

/* The host of these first and last processes stops until the others have told of it.
 * busy: one that works, or -1. */
static void lose(int first, int last, int busy, const char *whom)
{
    pid_t pids[4], mine = getpid();
    MPI_Allgather(&mine, sizeof mine, MPI_BYTE, pids, sizeof mine, MPI_BYTE,
                  MPI_COMM_WORLD);
    bool waiting[4], stops = test_rank >= first && test_rank <= last;
    for (int r = 0; r < 4; r++) waiting[r] = (r < first || r > last) && r != busy;
    bool waits = waiting[test_rank];
    int waker = first > 2 ? 1 : first > 0 ? 0 : 3;
    sbn_watch *watch = begin();
    hear_of_each_other(watch);
    if (stops) raise(SIGSTOP);
    if (waits) wait_for_as_long_as_it_takes(watch, test_rank == 1);
    if (waits) meet(waker, waiting);
    if (test_rank == busy) test_sleep(PATIENCE_S);
    if (test_rank == waker)
        for (int r = first; r <= last; r++) wake(pids[r]);
    if (test_rank == 0) assert_int_equal(atomic_load(&watch->board.heard[0]), 0);
    if (test_rank == 0 && per_host > 1)
        assert_int_equal(atomic_load(&watch->board.heard[1]), 0);
    sbn_watch_destroy(&watch);
    int speakers = told.calls > 0 && told.speaks;
    MPI_Allreduce(MPI_IN_PLACE, &speakers, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    assert_true(speakers >= 1);
    assert_int_equal(told.calls > 0, waits);
    if (!waits) return;
    assert_true(told.waited_s > limit_s && told.waited_s < limit_s + 1.5);
    if (told.speaks && !strstr(told.text, whom))
        fail_msg("got \"%s\", expected \"%s\" in it", told.text, whom);
}

static void a_host_without_a_sign_of_life_is_lost(void **state)
{
    (void)state;
    lose(0, 1, -1, " for a sign of life from: processes 0, 1 on ");
    lose(2, 3, -1, " for a sign of life from: processes 2, 3 on ");
}

/* Process 0 alone hears of all, and tells the others though it works. */
static void process_0_tells_who_is_lost(void **state)
{
    (void)state;
    per_host = 1;
    lose(3, 3, 0, " for a sign of life from: process 3 on ");
    per_host = 2;
}

/* Where this very host was lost and is back, process 0's word of it still comes. */
static void who_hears_that_it_is_lost_is_not(void **state)
{
    (void)state;
    sbn_watch *watch = begin();
    hear_of_each_other(watch);
    if (test_rank == 2) {
        const sbni_beacon *b = &watch->beacon;
        struct sockaddr_in own;
        socklen_t bytes = sizeof own;
        assert_int_equal(getsockname(b->fd, (struct sockaddr *)&own, &bytes), 0);
        own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        struct {
            uint64_t token;
            int32_t rank, lost;
        } word = {b->token, 0, 2};
        _Atomic uint64_t *heard = &watch->board.heard[0];
        uint64_t enough = atomic_load(heard) + 20;
        for (int i = 0; i < 1000 && atomic_load(heard) < enough; i++) {
            assert_true(sendto(b->fd, &word, sizeof word, 0,
                               (const struct sockaddr *)&own, sizeof own) > 0);
            test_sleep(0.01);
            assert_int_equal(atomic_load(watch->board.lost), 0);
        }
        assert_true(atomic_load(heard) >= enough);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    sbn_watch_destroy(&watch);
    assert_int_equal(told.calls, 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(who_waits_in_turn_is_not_missed),
    cmocka_unit_test(who_is_at_work_is_missed),
    cmocka_unit_test(who_works_for_long_is_not_lost),
    cmocka_unit_test(a_host_without_a_sign_of_life_is_lost),
    cmocka_unit_test(process_0_tells_who_is_lost),
    cmocka_unit_test(who_hears_that_it_is_lost_is_not),
};
TEST_MAIN(tests)

#define _GNU_SOURCE /* prctl */
#include "support/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/rollcall.h"

/* Processes that wait for an MPI that does not start: children of this one, which know of
 * each other by what a launcher tells. */
enum { MOST = 16 };

typedef struct job {
    int size, here;
    double limit_s;
    pid_t pid[MOST]; /* 0: not begun */
    int ends[MOST];  /* written to: its MPI has started */
    char said[4200]; /* file of what all print */
} job;

static void set(const char *name, int value)
{
    char text[16];
    snprintf(text, sizeof text, "%d", value);
    setenv(name, text, 1);
}

static job new_job(const char *name, int size, int here, double limit_s)
{
    job j = {.size = size, .here = here, .limit_s = limit_s};
    char id[100];
    snprintf(id, sizeof id, "test-%ld-%s", (long)getpid(), name);
    setenv("PMIX_NAMESPACE", id, 1);
    snprintf(j.said, sizeof j.said, "%s/%s", test_folder(), name);
    return j;
}

/* What a process does from its begin on; it has a name when it has written to begun. */
static void live(const job *j, int rank, int ends, int begun)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* where a case fails */
    set("OMPI_COMM_WORLD_RANK", rank);
    set("OMPI_COMM_WORLD_SIZE", j->size);
    set("OMPI_COMM_WORLD_LOCAL_SIZE", j->here);
    int said = open(j->said, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (said < 0 || dup2(said, STDERR_FILENO) < 0) _exit(1);
    sbni_rollcall *r = sbni_rollcall_begin(j->limit_s);
    char byte = 0;
    if (!r || write(begun, &byte, 1) != 1) _exit(2);
    while (read(ends, &byte, 1) != 1)
        if (errno != EINTR) _exit(3);
    sbni_rollcall_end(r);
    _exit(0);
}

static void begin(job *j, int rank)
{
    int begun[2], ends[2];
    char byte;
    assert_int_equal(pipe(begun) | pipe(ends), 0);
    j->ends[rank] = ends[1];
    j->pid[rank] = fork();
    assert_true(j->pid[rank] >= 0);
    if (j->pid[rank] == 0) {
        close(ends[1]);
        live(j, rank, ends[0], begun[1]);
    }
    close(ends[0]);
    close(begun[1]);
    assert_int_equal(read(begun[0], &byte, 1), 1);
    close(begun[0]);
}

/* One that has a name, and stops before anybody asks. */
static void begin_asleep(job *j, int rank)
{
    begin(j, rank);
    kill(j->pid[rank], SIGSTOP);
}

static void begin_all(job *j)
{
    for (int i = 0; i < j->size; i++) begin(j, i);
}

static void tell_all(const job *j, int number)
{
    for (int i = 0; i < j->size; i++)
        if (j->pid[i]) assert_int_equal(kill(j->pid[i], number), 0);
}

/* All end with this code. */
static void ended(job *j, int code)
{
    for (int i = 0; i < j->size; i++) {
        if (!j->pid[i]) continue;
        int state;
        assert_int_equal(waitpid(j->pid[i], &state, 0), j->pid[i]);
        assert_true(WIFEXITED(state));
        assert_int_equal(WEXITSTATUS(state), code);
        close(j->ends[i]);
        j->pid[i] = 0;
    }
}

static void others_ended(job *j, int but, int code)
{
    pid_t kept = j->pid[but];
    j->pid[but] = 0;
    ended(j, code);
    j->pid[but] = kept;
}

/* What they said is one line with this for the others, so long after the limit, and not
 * much more; or nothing. */
static void said(const job *j, const char *want, double more_s)
{
    char text[4096] = "", whole[512];
    FILE *f = fopen(j->said, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    if (!want) {
        assert_string_equal(text, "");
        return;
    }
    char *begins = strstr(text, " s for ");
    assert_non_null(begins);
    snprintf(whole, sizeof whole, " s for %s; allow more time by --stall-limit\n", want);
    assert_string_equal(begins, whole);
    assert_ptr_equal(strstr(text, "syncbn: "), text);
    double waited_s = strtod(strstr(text, "has waited ") + strlen("has waited "), NULL);
    assert_true(waited_s > j->limit_s + more_s - 0.1);
    assert_true(waited_s < j->limit_s + more_s + 0.4 + (more_s > 0 ? 0 : 1.2));
    assert_true(strchr(text, '\n') == text + n - 1);
}

static void all_are_there(void **state)
{
    (void)state;
    job j = new_job("all", 3, 3, 0.6);
    begin_all(&j);
    ended(&j, 86);
    said(&j, "MPI itself; all processes are there", 0);
}

static void one_has_not_begun(void **state)
{
    (void)state;
    job j = new_job("absent", 4, 4, 0.6);
    for (int i = 0; i < 4; i++)
        if (i != 2) begin(&j, i);
    ended(&j, 86);
    said(&j, "process 2 (not there)", 0);
}

/* It ends like the others when it goes on. */
static void one_is_stopped(void **state)
{
    (void)state;
    for (int which = 0; which < 3; which++) {
        char name[] = "stopped-0";
        name[8] = (char)('0' + which);
        job j = new_job(name, 3, 3, 0.6);
        begin_asleep(&j, which);
        for (int i = 0; i < 3; i++)
            if (i != which) begin(&j, i);
        others_ended(&j, which, 86);
        char want[32];
        snprintf(want, sizeof want, "process %d (stopped)", which);
        said(&j, want, 0);
        kill(j.pid[which], SIGCONT);
        ended(&j, 86);
        said(&j, want, 0);
    }
}

static void both_kinds(void **state)
{
    (void)state;
    job j = new_job("both", 5, 5, 0.6);
    begin_asleep(&j, 1);
    for (int i = 0; i < 4; i++)
        if (i != 1) begin(&j, i);
    others_ended(&j, 1, 86);
    said(&j, "process 1 (stopped); process 4 (not there)", 0);
    kill(j.pid[1], SIGCONT);
    ended(&j, 86);
}

/* Of processes 0 to 3 those of one host; of the other nothing is known. */
static void another_host(void **state)
{
    (void)state;
    job j = new_job("host", 4, 2, 0.3), k = new_job("host-missing", 4, 2, 0.3);
    begin(&k, 1);
    setenv("PMIX_NAMESPACE", "test-of-its-own", 1);
    begin(&j, 0);
    begin(&j, 1);
    ended(&j, 86);
    ended(&k, 86);
    said(&j, "some of processes 2, 3 (not on this host)", 0.6);
    said(&k, "1 of this host (not there), of processes 0, 2, 3", 0);
}

/* Where the launcher gives the job no name, process 0 speaks for all, or 1 where that one
 * is stopped. */
static void without_a_name(void **state)
{
    (void)state;
    for (int first = 0; first < 2; first++) {
        job j = new_job(first ? "nameless-1" : "nameless", 3, 3, 0.3);
        unsetenv("PMIX_NAMESPACE");
        for (int i = first; i < (first ? 3 : 1); i++) begin(&j, i);
        ended(&j, 86);
        said(&j, "the others", first ? 0.6 : 0);
    }
}

static void mpi_starts(void **state)
{
    (void)state;
    job j = new_job("starts", 3, 3, 2);
    begin(&j, 0);
    test_sleep(1.6); /* beyond when the first asks */
    begin(&j, 1);
    begin(&j, 2);
    for (int i = 0; i < 3; i++) assert_int_equal(write(j.ends[i], "", 1), 1);
    ended(&j, 0);
    said(&j, NULL, 0);
}

static void suspended(void **state)
{
    (void)state;
    job j = new_job("suspended", 3, 3, 1.2);
    begin_all(&j);
    test_sleep(0.2);
    tell_all(&j, SIGSTOP);
    test_sleep(1.6);
    tell_all(&j, SIGCONT);
    test_sleep(0.3);
    for (int i = 0; i < 3; i++) assert_int_equal(write(j.ends[i], "", 1), 1);
    ended(&j, 0);
    said(&j, NULL, 0);
}

/* The one that asks stops before it tells: another takes its place. */
static void who_asks_is_stopped(void **state)
{
    (void)state;
    job j = new_job("asker", 3, 3, 2);
    begin(&j, 1);
    test_sleep(0.6);
    begin(&j, 0);
    begin(&j, 2);
    test_sleep(1.15); /* since 1.5 the first asks, and it would tell at 2 */
    kill(j.pid[1], SIGSTOP);
    others_ended(&j, 1, 86);
    said(&j, "process 1 (stopped)", 0);
    kill(j.pid[1], SIGCONT);
    ended(&j, 86);
}

static void many(void **state)
{
    (void)state;
    job j = new_job("many", MOST, MOST, 0.8);
    begin_asleep(&j, 5);
    for (int i = 0; i < MOST; i++)
        if (i != 5) begin(&j, i);
    others_ended(&j, 5, 86);
    said(&j, "process 5 (stopped)", 0);
    kill(j.pid[5], SIGCONT);
    ended(&j, 86);
}

static void no_limit(void **state)
{
    (void)state;
    assert_null(sbni_rollcall_begin(0));
    sbni_rollcall_end(NULL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(all_are_there),  cmocka_unit_test(one_has_not_begun),
    cmocka_unit_test(one_is_stopped), cmocka_unit_test(both_kinds),
    cmocka_unit_test(another_host),   cmocka_unit_test(mpi_starts),
    cmocka_unit_test(suspended),      cmocka_unit_test(who_asks_is_stopped),
    cmocka_unit_test(many),           cmocka_unit_test(without_a_name),
    cmocka_unit_test(no_limit),
};
TEST_MAIN(tests)

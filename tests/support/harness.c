#undef _FORTIFY_SOURCE /* with which vasprintf is what is defined below */
#define _GNU_SOURCE    /* nftw, vasprintf */
#include "support/harness.h"

#include <ftw.h>
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#include <stdarg.h>

/* Plugins of MPI stay, so that what they leak has a name to be forgiven by: else only
 * stacks unwound at every allocation would tell, which takes most of the time of some
 * tests. */
int dlclose(void *library);
__attribute__((visibility("default"))) int dlclose(void *library)
{
    (void)library;
    return 0;
}

/* Texts that MPI leaks by libc's hands, whose frames have no name without debug symbols.
 */
int __vasprintf_chk(char **text, int flag, const char *format, va_list args);
__attribute__((visibility("default"), format(printf, 3, 0))) int
__vasprintf_chk(char **text, int flag, const char *format, va_list args)
{
    (void)flag;
    __lsan_disable();
    int n = vasprintf(text, format, args);
    __lsan_enable();
    return n;
}

int __asprintf_chk(char **text, int flag, const char *format, ...);
__attribute__((visibility("default"), format(printf, 3, 4))) int
__asprintf_chk(char **text, int flag, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = __vasprintf_chk(text, flag, format, args);
    va_end(args);
    return n;
}
#endif

sbn_group *test_group;
int test_rank, test_size;

static char folder[256];

static int remove_entry(const char *path, const struct stat *s, int kind, struct FTW *ftw)
{
    (void)s;
    (void)kind;
    (void)ftw;
    return remove(path);
}

const char *test_folder(void)
{
    if (folder[0]) return folder;
    if (test_rank == 0) {
        const char *base = getenv("TMPDIR");
        snprintf(folder, sizeof folder, "%s/syncbn-test-XXXXXX", base ? base : "/tmp");
        if (!mkdtemp(folder)) {
            perror(folder);
            MPI_Abort(MPI_COMM_WORLD, 1);
        }
    }
    MPI_Bcast(folder, sizeof folder, MPI_CHAR, 0, MPI_COMM_WORLD);
    return folder;
}

void test_status(sbn_status got, sbn_status want, const char *call, const char *file,
                 int line)
{
    if (got == want) return;
    fprintf(stderr, "process %d: %s gave %s, expected %s: %s\n", test_rank, call,
            sbn_status_name(got), sbn_status_name(want), sbn_last_error());
    _fail(file, line);
}

void test_failed_on(int bad, sbn_status code, sbn_status got, const char *file, int line)
{
    int mine = bad < 0 || bad == test_rank;
    test_status(got, mine ? code : SBN_E_PEER, "the call", file, line);
    if (!mine) assert_int_equal(sbn_peer_status(), code);
}

void test_close(double got, double want, double tolerance, const char *what,
                const char *file, int line)
{
    if (fabs(got - want) <= tolerance) return;
    fprintf(stderr, "process %d: %s is %.17g, expected %.17g within %.3g\n", test_rank,
            what, got, want, tolerance);
    _fail(file, line);
}

void test_sleep(double s)
{
    struct timespec t = {(time_t)s, (long)(1e9 * (s - (double)(time_t)s))};
    while (nanosleep(&t, &t)) continue;
}

int test_run(int argc, char **argv, const struct CMUnitTest *tests, size_t n)
{
    int provided;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &test_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &test_size);
    if (test_rank != 0 && !freopen("/dev/null", "w", stdout))
        MPI_Abort(MPI_COMM_WORLD, 1);
    OK(sbn_group_create(MPI_COMM_WORLD, &test_group));
    /* A process whose case failed would go on to messages that nobody expects. */
    if (test_size > 1) setenv("CMOCKA_TEST_ABORT", "1", 0);
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    int failed = _cmocka_run_group_tests("syncbn", tests, n, NULL, NULL);
    /* The others may wait in a collective for a process whose case failed. */
    if (failed && test_size > 1) MPI_Abort(MPI_COMM_WORLD, 1);
    sbn_group_destroy(&test_group);
    MPI_Barrier(MPI_COMM_WORLD);
    if (folder[0] && test_rank == 0) nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    MPI_Finalize();
    return failed != 0;
}

/* CMocka under MPI: every process runs the same cases, process 0 reports, one failure
 * ends the job. */
#ifndef SUPPORT_HARNESS_H
#define SUPPORT_HARNESS_H

/* CMocka needs these four before its header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "syncbn/group.h"

/* The group of all processes, made before the first case. */
extern sbn_group *test_group;
extern int test_rank, test_size;

/* Body of main: MPI_Init, cases, MPI_Finalize. Returns main's value. */
int test_run(int argc, char **argv, const struct CMUnitTest *tests, size_t n);

#define TEST_MAIN(tests)                                                                 \
    int main(int argc, char **argv)                                                      \
    {                                                                                    \
        return test_run(argc, argv, (tests), sizeof(tests) / sizeof((tests)[0]));        \
    }

/* A fallible call that must succeed; prints the library's text when it does not. */
#define OK(call) test_status((call), SBN_OK, #call, __FILE__, __LINE__)

/* A fallible call that must fail with this status. */
#define FAILS(code, call) test_status((call), (code), #call, __FILE__, __LINE__)

void test_status(sbn_status got, sbn_status want, const char *call, const char *file,
                 int line);

/* Run for each process alone, and (bad = -1) for all. */
#define EACH_BAD(bad) for (int bad = -1; bad < test_size; bad++)
#define IS_BAD(bad) ((bad) < 0 || (bad) == test_rank)

/* The call failed with `code` on process `bad` alone and with SBN_E_PEER on the others;
 * bad -1: with `code` on all. */
void test_failed_on(int bad, sbn_status code, sbn_status got, const char *file, int line);
#define FAILS_ON(bad, code, call)                                                        \
    test_failed_on((bad), (code), (call), __FILE__, __LINE__)

/* |got - want| <= tolerance, also refusing NaN. */
#define CLOSE(got, want, tolerance)                                                      \
    test_close((got), (want), (tolerance), #got, __FILE__, __LINE__)

void test_close(double got, double want, double tolerance, const char *what,
                const char *file, int line);

/* A fresh empty folder below the build's temporary folder, the same on every process;
 * removed with what it holds at exit. */
const char *test_folder(void);

/* All of these seconds, whatever signals come. */
void test_sleep(double s);

#endif

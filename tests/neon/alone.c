/* The harness of one process without MPI; see support/harness.h. */
#include "support/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

sbn_group *test_group;
int test_rank, test_size = 1;

void _fail(const char *file, int line)
{
    fprintf(stderr, "%s:%d: failed\n", file, line);
    exit(1);
}

void test_close(double got, double want, double tolerance, const char *what,
                const char *file, int line)
{
    if (fabs(got - want) <= tolerance) return;
    fprintf(stderr, "%s is %.17g, expected %.17g within %.3g\n", what, got, want,
            tolerance);
    _fail(file, line);
}

int test_run(int argc, char **argv, const struct CMUnitTest *tests, size_t n)
{
    (void)argc;
    (void)argv;
    for (size_t i = 0; i < n; i++) {
        void *state = NULL;
        tests[i].run(&state);
        printf("ok %s\n", tests[i].name);
    }
    return 0;
}

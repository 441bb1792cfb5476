#include "cli/stall.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/startup.h"
#include "options/options.h"

enum { STALLED = 86 };

double sbni_stall_limit(int argc, char **argv)
{
    static const char option[] = "--stall"; /* also short for --stall-limit */
    const char *text = NULL;
    for (int i = 2; i < argc; i++) {
        if (strncmp(argv[i], option, sizeof option - 1) != 0) continue;
        text = strchr(argv[i], '=');
        text = text ? text + 1 : argv[i + 1];
    }
    if (!text) return SBNI_STALL_LIMIT_S;
    if (!strcmp(text, "none")) return 0;
    char *end;
    double limit_s = strtod(text, &end);
    /* another text is refused later, with all options */
    return *end == 0 && limit_s > 0 && isfinite(limit_s) ? limit_s : SBNI_STALL_LIMIT_S;
}

static char start_line[256];

static void end_start(int number)
{
    (void)number;
    if (write(STDERR_FILENO, start_line, strlen(start_line)) < 0) _exit(STALLED);
    _exit(STALLED);
}

void sbni_stall_at_start(double limit_s)
{
    const double most_s = 1e6;
    int rank = sbni_launcher_rank();
    if (limit_s <= 0 || limit_s > most_s) return;
    double wait_s = ceil(limit_s) + (rank > 0 ? 2 : 0); /* by when its end ended this */
    snprintf(start_line, sizeof start_line,
             "syncbn: no progress in the start of MPI: process %d has waited %.0f s for "
             "the others; look for one that stands still, or allow more time by "
             "--stall-limit\n",
             rank, wait_s);
    signal(SIGALRM, end_start);
    alarm((unsigned)wait_s);
}

void sbni_stall_started(void)
{
    alarm(0);
    signal(SIGALRM, SIG_DFL);
}

/* In the watch's thread, while the other waits: no stream of stdio, which that one may
 * hold, and nothing of what a normal end does. */
void sbni_stalled(const sbn_stall *stall, void *context)
{
    char line[2048];
    const char *whom = context ? context : "";
    if (stall->speaks) {
        int n =
            snprintf(line, sizeof line,
                     "syncbn: no progress in %s%s; go on with --resume, or allow more "
                     "time by --stall-limit\n",
                     stall->text, whom);
        if (write(STDERR_FILENO, line, (size_t)n) < 0) _exit(STALLED);
    }
    _exit(STALLED);
}

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

/* Whether an argument, up to its =, is the option, which may be given short. */
static bool is_stall_limit(const char *argument)
{
    static const char option[] = "--stall-limit", least[] = "--sta";
    size_t length = strcspn(argument, "=");
    return length >= sizeof least - 1 && length < sizeof option &&
           !strncmp(argument, option, length);
}

double sbni_stall_limit(int argc, char **argv)
{
    const char *text = NULL;
    for (int i = 2; i < argc; i++) {
        if (!is_stall_limit(argv[i])) continue;
        const char *value = strchr(argv[i], '=');
        text = value ? value + 1 : argv[i + 1];
    }
    if (!text) return SBNI_STALL_LIMIT_S;
    if (!strcmp(text, "none")) return 0;
    char *end;
    double limit_s = strtod(text, &end);
    /* another text is refused later, with all options */
    return *end == 0 && limit_s > 0 && isfinite(limit_s) ? limit_s : SBNI_STALL_LIMIT_S;
}

static char start_line[256];
static volatile sig_atomic_t seconds_left;

/* Second by second, of which a suspended process has none. */
static void tick(int number)
{
    (void)number;
    if (--seconds_left > 0) {
        alarm(1);
        return;
    }
    if (write(STDERR_FILENO, start_line, strlen(start_line)) < 0) _exit(STALLED);
    _exit(STALLED);
}

void sbni_stall_at_start(double limit_s)
{
    const double most_s = 1e6;
    int rank = sbni_launcher_rank();
    if (limit_s <= 0 || limit_s > most_s) return;
    /* by when the launcher has ended this one, if a process before it spoke */
    int wait_s = (int)ceil(limit_s) + (rank == 0 ? 0 : rank == 1 ? 4 : 6);
    snprintf(
        start_line, sizeof start_line,
        "syncbn: no progress in the start of MPI: process %d has waited %d s for the "
        "others; look for one that stands still, or allow more time by "
        "--stall-limit\n",
        rank, wait_s);
    if (rank > 1) start_line[0] = 0;
    seconds_left = wait_s;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = tick;
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, NULL);
    alarm(1);
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

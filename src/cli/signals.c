#include "cli/signals.h"

#include <stdbool.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t asked_to_stop;
static volatile sig_atomic_t mpi_has_started;

static void ask_to_stop(int number)
{
    if (number == SIGTERM && !mpi_has_started) _exit(SBNI_EXIT_STOPPED);
    asked_to_stop = 1;
}

/* The first signal of a kind asks; the second finds its default action, and ends the
 * process. */
const volatile sig_atomic_t *sbni_listen_for_stop(void)
{
    static const int signals[] = {SIGUSR1, SIGTERM, SIGINT};
    static bool listens;
    if (listens) return &asked_to_stop;
    listens = true;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = ask_to_stop;
    action.sa_flags = (int)(SA_RESETHAND | SA_RESTART);
    for (int i = 0; i < 3; i++) sigaction(signals[i], &action, NULL);
    return &asked_to_stop;
}

void sbni_listen_to_save(void)
{
    mpi_has_started = 1;
}

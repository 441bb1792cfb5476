#include "cli/signals.h"

#include <stdbool.h>
#include <string.h>
#include <unistd.h>

enum { STOPPED = 75 };

static volatile sig_atomic_t asked_to_stop;

static void ask_to_stop(int number)
{
    (void)number;
    asked_to_stop = 1;
}

_Noreturn static void end_at_once(int number)
{
    (void)number;
    _exit(STOPPED);
}

static void on(int number, void (*handler)(int))
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = (int)(SA_RESETHAND | SA_RESTART);
    sigaction(number, &action, NULL);
}

static void ask_by_user(void)
{
    static bool listens;
    if (listens) return;
    listens = true;
    on(SIGUSR1, ask_to_stop);
    on(SIGINT, ask_to_stop);
}

void sbni_listen_while_mpi_starts(void)
{
    ask_by_user();
    on(SIGTERM, end_at_once);
}

/* The first signal of a kind asks; the second finds its default action, and ends the
 * process. */
const volatile sig_atomic_t *sbni_listen_for_stop(void)
{
    static bool listens;
    ask_by_user();
    if (!listens) on(SIGTERM, ask_to_stop);
    listens = true;
    return &asked_to_stop;
}

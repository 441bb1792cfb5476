/* Signals that ask a run to save and end. */
#ifndef SBNI_SIGNALS_H
#define SBNI_SIGNALS_H

#include <signal.h>

enum { SBNI_EXIT_STOPPED = 75 };

/* From now on USR1, TERM and INT set what is returned, each once: a second signal of a
 * kind ends the process. TERM ends it at once, with 75, until sbni_listen_to_save: there
 * is nothing to save, and a launcher sends it to a process that it wakes to end it.
 * Local. */
const volatile sig_atomic_t *sbni_listen_for_stop(void);
void sbni_listen_to_save(void);

#endif

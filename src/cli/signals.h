/* Signals that ask a run to save and end. */
#ifndef SBNI_SIGNALS_H
#define SBNI_SIGNALS_H

#include <signal.h>

/* From now on USR1, TERM and INT set what is returned, each once: a second signal of a
 * kind ends the process. Local. */
const volatile sig_atomic_t *sbni_listen_for_stop(void);

/* Until then USR1 and INT are kept for it. TERM ends this process with 75: there is
 * nothing to save, and a launcher that sends it to end all would wait. Local. */
void sbni_listen_while_mpi_starts(void);

#endif

/* Threads beside those of the program. */
#ifndef SBNI_THREAD_H
#define SBNI_THREAD_H

#include <pthread.h>

/* Start one that gets no signals, which are for the program's own. 0, or errno's number.
 */
int sbni_thread_start(pthread_t *thread, void *(*run)(void *), void *argument);

#endif

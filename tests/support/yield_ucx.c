#define _GNU_SOURCE
#include <dlfcn.h>
#include <sched.h>
#include <stdlib.h>

/* Preloaded under MPICH over UCX, which waits by spinning and has no setting for it: with
 * more processes than cores a message then takes a slice of the scheduler's time. Whoever
 * finds nothing to do lets the next process run, as Open MPI's mpi_yield_when_idle does.
 */

unsigned ucp_worker_progress(void *worker);
__attribute__((visibility("default"))) unsigned ucp_worker_progress(void *worker)
{
    static unsigned (*progress)(void *);
    if (!progress) {
        *(void **)&progress = dlsym(RTLD_NEXT, "ucp_worker_progress");
        if (!progress) abort();
    }
    unsigned done = progress(worker);
    if (done == 0) sched_yield();
    return done;
}

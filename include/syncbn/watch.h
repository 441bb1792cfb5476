/** A watch over the collectives of a group: tells when they stand still, and who is
 * missing. */
#ifndef SYNCBN_WATCH_H
#define SYNCBN_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "syncbn/group.h"
#include "syncbn/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * A process that is stopped, or whose host is gone, makes all others wait for it for
 * ever. A watch is a thread in every process of a group that sees how long its process
 * has stood in one collective of the library (a layer's sums, gradients, agreements, …),
 * and calls the program when that is too long. The thread calls nothing of MPI, so
 * MPI_THREAD_FUNNELED suffices: each process answers for itself, also when its host is
 * cut off. The processes of one host tell each other where they are through memory that
 * they share; a process of each host tells process 0 that it lives, and is answered, by
 * datagrams of 16 bytes, two a second, or four within the limit where that is more (UDP
 * over IPv4, from any address of the host to all that process 0 has until one answers,
 * and a port that the system chooses). No result depends on them.
 *
 * Time counts only while this process runs: one that is suspended together with the job
 * (Ctrl-Z, a laptop that sleeps) goes on as if nothing had been.
 */
typedef struct sbn_watch sbn_watch;

/** A collective that has stood still. Strings live as long as the call of the handler. */
typedef struct sbn_stall {
    const char *what; /**< layer and phase: "conv2_bn forward"; "agreement", … */
    int64_t call;     /**< how many of this kind there were, this one included */
    int64_t step;     /**< as sbn_watch_set_step said; 0: never */
    double waited_s;  /**< by this process */
    const char *text; /**< one line: the above, the processes that did not arrive, and
                           what is known of them */
    bool speaks;      /**< among the processes of this host, the one that is to print */
} sbn_stall;

/**
 * What to do about a stall; runs in the watch's thread while the program's own waits in
 * MPI. Usually: print stall->text where stall->speaks, then end the process with _exit,
 * by which the launcher learns that the job has failed and ends the rest. When it returns
 * the watch goes on and calls again after as much time. It is called, to end, also on a
 * process that does not wait once the one that spoke has ended: on one that was stopped,
 * and woke as the launcher ended it. It may set another limit, but not destroy the watch.
 */
typedef void (*sbn_stall_handler)(const sbn_stall *stall, void *context);

/**
 * Begin to watch a group. One watch a group.
 * @param limit_s  seconds that a process may stand in one collective, > 0; 0: for ever.
 *                 It is waited for by others while it works on its own, so this must be
 *                 more than the longest that one process works between two collectives:
 *                 reading data, its share of a step, writing a file. The handler is
 *                 called between limit_s and limit_s + 0.6 s; where it is
 *                 processes of another host that are missing, up to 1.5 s behind it, as
 *                 that host can tell more. Where a collective may take any time, such as
 *                 waiting for data that one process reads, only for processes that are
 *                 stopped, and hosts that gave signs of life and give none for so long.
 * @param handler  what to do; on a process that does not speak it is called a moment
 *                 later, so that one line is printed once a job.
 * @param context  handed to the handler.
 * @param watch    receives the watch.
 * @collective over the group: it is split by hosts; 100 bytes a process, 48 bytes where
 * there are several hosts, and agreements.
 * @errors SBN_E_ARG, SBN_E_MEMORY, SBN_E_STATE (the group is watched already, or there
 * can be no more threads), SBN_E_MPI; SBN_E_PEER where only others failed.
 */
SBN_API sbn_status sbn_watch_create(sbn_group *group, double limit_s,
                                    sbn_stall_handler handler, void *context,
                                    sbn_watch **watch);

/** End the watch and null the pointer; NULL and *watch == NULL are fine. May come before
 * or after the group's end. Local. */
SBN_API void sbn_watch_destroy(sbn_watch **watch);

/** Another limit from here on; NULL for the watch is fine. Local. */
SBN_API void sbn_watch_set_limit(sbn_watch *watch, double limit_s);

/** The step that texts name from here on; NULL for the watch is fine. Local. */
SBN_API void sbn_watch_set_step(sbn_watch *watch, int64_t step);

/**
 * Watch a collective of the program's own: from enter to leave this process counts as
 * waiting for all others to enter.
 * @param what  its name in texts, up to 55 bytes; the same on all processes.
 * Local; called by the thread that calls MPI; NULL for the watch is fine.
 */
SBN_API void sbn_watch_enter(sbn_watch *watch, const char *what);
SBN_API void sbn_watch_leave(sbn_watch *watch);

#ifdef __cplusplus
}
#endif
#endif

/* The group's innards: what the layers above comm/ may ask of MPI. */
#ifndef SBNI_GROUP_H
#define SBNI_GROUP_H

#include <stdbool.h>
#include <stdint.h>

#include "comm/call.h"
#include "comm/traffic.h"
#include "core/status.h"
#include "syncbn/group.h"

struct sbn_group {
    MPI_Comm comm;
    struct sbni_lane *lanes;         /* comm/lane.h */
    bool by_memory;                  /* sums go through memory of the host that all
                                        processes are on */
    bool crowded;                    /* more processes than cores of theirs, there */
    sbni_traffic *rows;              /* of labelled messages */
    sbni_traffic other;              /* of all else */
    struct sbni_reduce *outstanding; /* sums begun and not ended, the latest first */
    int rank, size;
    MPI_Comm check; /* of comm/lockstep.h */
    bool checks, telling,
        broken;              /* in check mode; and whether calls were found to differ */
    uint64_t checked;        /* calls so far in check mode */
    struct sbn_watch *watch; /* NULL: nobody watches, or this process is alone */
    uint32_t layers;         /* made so far: numbers the layers alike on all processes */
};

/* Turn an MPI return code into a status; `call` names the call. */
sbn_status sbni_mpi(int code, const char *call);

/* The MPI library's name and version, one line; owned by the library. Needs MPI running.
 */
const char *sbni_mpi_version(void);

/* Whether the thread that called MPI_Init may call MPI while others are in a parallel
 * region with it. */
bool sbni_group_is_funneled(void);

/* A group of this process alone. Local. */
sbn_status sbni_group_alone(sbn_group **group);

/* sbn_group_agree where some process is at work for a good part of a second: those that
 * wait sleep meanwhile, as blocking calls of MPI would take cores from it.
 * @collective a barrier more */
sbn_status sbni_group_agree_asleep(sbn_group *group, sbn_status mine);

/* Number of hosts that the group's processes run on, and of its processes on this one.
 * @collective */
sbn_status sbni_group_hosts(sbn_group *group, int *hosts, int *processes);

/* Send bytes of one process to all. @collective */
sbn_status sbni_group_broadcast(sbn_group *group, void *data, int64_t bytes, int root);

/* A value of each process, by rank. @collective (8 bytes of each) */
sbn_status sbni_group_gather(sbn_group *group, int64_t value, int64_t *values);

/* Largest and smallest of a value. @collective (16 bytes) */
sbn_status sbni_group_range(sbn_group *group, int64_t value, int64_t *least,
                            int64_t *greatest);

/* The same of n ≤ SBNI_GROUP_RANGES values at once. @collective (16·n bytes) */
enum { SBNI_GROUP_RANGES = 8 };
sbn_status sbni_group_ranges(sbn_group *group, const int64_t *values, int n,
                             int64_t *least, int64_t *greatest);

#endif

/*
 * Sums of one length. MPI libraries write beyond a buffer when calls with different
 * counts meet in one collective. So sums of each length have a communicator of their own,
 * or count themselves apart where they go through memory: calls out of order then meet
 * nobody, or others of their length, which the header tells apart.
 */
#ifndef SBNI_LANE_H
#define SBNI_LANE_H

#include "comm/hostsum.h"

typedef struct sbni_lane {
    sbn_group *group;
    int64_t words;
    MPI_Comm comm;     /* of sums by MPI; MPI_COMM_NULL: none yet */
    sbni_begun *begun; /* [size] in memory of the host; NULL: none goes through memory */
    uint64_t sums;     /* that this process has begun */
    struct sbni_lane *next;
} sbni_lane;

/* The lane of sums of so many words. spare becomes a new lane when there is none of that
 * length yet, else it is freed: so nothing is allocated where the processes already count
 * on each other.
 * @collective over the group, with the same words, when new */
sbn_status sbni_lane_join(sbn_group *group, int64_t words, sbni_lane *spare,
                          sbni_lane **lane);

/* Make its communicator, if that is not done. @collective over the group */
sbn_status sbni_lane_dup(sbni_lane *lane);

/* All of a group; MPI may be over. Local. */
void sbni_lane_free_all(sbn_group *group);

#endif

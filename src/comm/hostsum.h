/*
 * Sums between the processes of one host, in memory that they share. Every process leaves
 * its words where the others see them and counts up how many sums it has begun. Of short
 * sums each process then adds up what all have left, for itself; long ones are cut into
 * pieces, and whoever waits takes a piece that nobody has taken and adds it up for all.
 * So nobody waits for a process that is elsewhere after it has begun, every word is read
 * once, and nothing is copied as messages of MPI are. Integers have no order: the sums
 * are those of MPI, bit by bit.
 */
#ifndef SBNI_HOSTSUM_H
#define SBNI_HOSTSUM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "comm/group.h"

/* How many sums of a lane a process has begun; one cache line, and that of a pair. */
typedef struct sbni_begun {
    _Alignas(128) _Atomic uint64_t sums;
} sbni_begun;

/* One message's words in all processes. */
typedef struct sbni_hostsum {
    struct sbni_lane *lane;
    void *memory;  /* NULL: not through memory */
    int64_t bytes; /* of the memory */
    int64_t words;
    int64_t apart;   /* bytes from one process's part of the memory to the next one's */
    int64_t piece;   /* words; 0: each process adds up all of them */
    int turn;        /* which of two places has the words that are filled or were sent */
    bool sent;       /* not filled since */
    uint64_t number; /* of the last sum among its lane's, from 1 */
    int come;        /* processes known to have begun it */
} sbni_hostsum;

/*
 * Whether sums of the group should go through memory: all processes are on one host, and
 * none has SBN_SUMS=mpi in its environment. crowded: there are more processes than cores.
 * @collective over the group: an MPI_Comm_split_type and 136 bytes.
 */
sbn_status sbni_hostsum_is_wanted(sbn_group *group, bool *wanted, bool *crowded);

/* Places for a message of the lane. memory stays NULL, on all, where there is none.
 * @collective over the group */
sbn_status sbni_hostsum_create(struct sbni_lane *lane, sbni_hostsum *sum);
/* What others still read stays theirs. Local. */
void sbni_hostsum_destroy(sbni_hostsum *sum);

/* Words to fill for the next sum, whatever is in them. Where they were filled or sent
 * last. Local. */
uint64_t *sbni_hostsum_fill(sbni_hostsum *sum);
uint64_t *sbni_hostsum_words(const sbni_hostsum *sum);

/* Let the others have the words. They meet the others' sum of that number in the lane. */
void sbni_hostsum_send(sbni_hostsum *sum);
/* Wait for the sum; MPI goes on meanwhile. It is in own [words], or with pieces where all
 * read it, until the next fill or send. NULL: calls were out of order. */
const uint64_t *sbni_hostsum_wait(sbni_hostsum *sum, uint64_t *own);

/* Bytes of words for each process. */
int64_t sbni_hostsum_bytes(const sbni_hostsum *sum);

#endif

/* One message of integers, summed over the group, in two halves: send, receive. */
#ifndef SBNI_REDUCE_H
#define SBNI_REDUCE_H

#include <stdbool.h>
#include <stdint.h>

#include "comm/lane.h"

/* Every message starts with this; the senders' headers add up like the rest. */
enum {
    SBNI_HEAD_TAG,    /* of layer, phase and call: size times one's own when all agree */
    SBNI_HEAD_FAILED, /* processes that can't go on */
    SBNI_HEAD_NONFINITE, /* processes that found NaN or infinity */
    SBNI_HEAD_LARGE, /* processes that found a value beyond the grid; in the upper half
                        of the word, those that found one too fine for it */
    SBNI_HEAD_WORDS
};

typedef struct sbni_reduce {
    sbn_group *group;
    int64_t words;         /* length of the message, header included */
    uint64_t *send;        /* [words] filled by the owner before begin */
    const uint64_t *sum;   /* [words] from end to the next clear or begin; others may read
                              it too. NULL: none. Of one process: what it sends */
    uint64_t *own;         /* [words] for the sum; NULL: it comes with host's. Of one
                              process: send */
    sbni_lane *lane;       /* NULL until connected */
    sbni_hostsum host;     /* through memory; else by MPI */
    sbni_call call;        /* as it is told */
    sbni_traffic *traffic; /* the group's row that it adds to */
    sbni_lane *spare;      /* for connecting */
    bool fine;             /* some process's sum was too fine; set with the verdict */
    MPI_Request request;
    bool outstanding;
    int poked; /* what MPI said when poked */
    /* Writes where NaN or infinity of this process comes from, and returns
     * SBN_E_NONFINITE, or SBN_OK where it can't say; NULL: nobody can. */
    sbn_status (*blame)(void *owner);
    void *owner;
    struct sbni_reduce *next; /* of the group's outstanding ones */
} sbni_reduce;

/* words counts the payload behind the header. Local; lengths must agree, which the owner
 * checks before it connects. */
sbn_status sbni_reduce_create(sbn_group *group, int64_t words, sbni_reduce *reduce);

/* Count these messages in a row of their own (comm/traffic.h), not with all others of the
 * group. Messages of one name and phase share it. phase is borrowed. Local. */
sbn_status sbni_reduce_label(sbni_reduce *reduce, const char *name, const char *phase);

/* Join the lane of this length; before the first message. What send holds stays in it,
 * but it may lie elsewhere then, after each clear and after a begin without one.
 * @collective over the group */
sbn_status sbni_reduce_connect(sbni_reduce *reduce);
void sbni_reduce_destroy(sbni_reduce *reduce);

/* Bytes that this process holds for it. */
int64_t sbni_reduce_bytes(const sbni_reduce *reduce);

/* Zero the message and write its tag. open leaves what is behind the header to the owner,
 * who sets every word of it. */
void sbni_reduce_clear(sbni_reduce *reduce, uint32_t tag);
void sbni_reduce_open(sbni_reduce *reduce, uint32_t tag);

/* Put what a conversion to the grid found (SBNI_GRID_) into the header. */
void sbni_reduce_note(sbni_reduce *reduce, int flags);

/* Send; with end later. Send and receive buffers are apart (in-place non-blocking sums
 * have been wrong in released MPI libraries). */
sbn_status sbni_reduce_begin(sbni_reduce *reduce);
sbn_status sbni_reduce_end(sbni_reduce *reduce);

/* Between the two: MPI libraries move a message only while the program is in one of their
 * calls. Moves all outstanding ones of the group; nothing to do when there are none. Only
 * for the thread that may call MPI. */
void sbni_reduce_poke(sbn_group *group);

/* Both at once, by the blocking call: the same integers. */
sbn_status sbni_reduce_run(sbni_reduce *reduce);

/*
 * What the header says, the same on all processes: SBN_OK, or a failure on every one.
 * mine is this process's own status before the message. Costs an agreement only when
 * there is a failure. what names the owner.
 */
sbn_status sbni_reduce_verdict(sbni_reduce *reduce, sbn_status mine, const char *what);

/* In place of the message and its verdict, for sums that this process keeps to itself. */
sbn_status sbni_reduce_alone(sbni_reduce *reduce, sbn_status mine, const char *what);

#endif

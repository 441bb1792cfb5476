/* Where each process is: a board in memory that the processes of one host share. A
 * process writes its own seat alone; the others look when they wait for it too long. The
 * first of the host also writes what it hears of other hosts. */
#ifndef SBNI_BOARD_H
#define SBNI_BOARD_H

#include <stdatomic.h>
#include <stdint.h>

#include "comm/group.h"

/* Of a call: text and the latest calls by their digests. */
enum { SBNI_SEAT_WORDS = 7, SBNI_SEAT_PAST = 16, SBNI_HOST_BYTES = 64 };

/* Calls are numbered from 1 in the order in which their process came to them. */
typedef struct sbni_seat {
    _Atomic uint64_t beats;    /* of the watching thread, while its process is let run */
    _Atomic uint64_t arrived;  /* number of the latest call */
    _Atomic uint64_t waits;    /* number of the one that is waited for; 0: none */
    _Atomic uint64_t has_time; /* the same, where it may take any time */
    _Atomic uint64_t told;     /* number of the one that text and call tell of */
    _Atomic int64_t call, step;
    _Atomic uint64_t text[SBNI_SEAT_WORDS];
    _Atomic uint64_t past[SBNI_SEAT_PAST]; /* call n at n % SBNI_SEAT_PAST */
} sbni_seat;

typedef struct sbni_board {
    void *memory; /* ends with the process; no name of it is left anywhere */
    int64_t bytes;
    _Atomic uint32_t *speaker; /* of this host, which tells of a stall: its seat + 1 */
    _Atomic uint32_t *lost; /* first process + 1 of a lost host, by what process 0 told */
    sbni_seat *seats, *mine;
    _Atomic uint64_t *heard;        /* [size] signs of life of other hosts, of their first
                                       process; 0: never any (comm/beacon.h) */
    int here, size;                 /* processes of this host, and of all */
    int *leader;                    /* [size] the first process of each one's host */
    int *ranks;                     /* [here] who has which seat */
    char (*hosts)[SBNI_HOST_BYTES]; /* [size] */
} sbni_board;

/* Where the processes of a host can't share memory, each has a board of its own, and all
 * others count as those of other hosts.
 * @collective over the group */
sbn_status sbni_board_create(sbn_group *group, sbni_board *board);
void sbni_board_destroy(sbni_board *board);

#endif

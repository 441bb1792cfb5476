/* Counts a program's MPI messages: count_mpi.c stands in for every call that communicates
 * and passes it on (the profiling interface of MPI). Linked into one test only. */
#ifndef SUPPORT_COUNT_MPI_H
#define SUPPORT_COUNT_MPI_H

#include <stdbool.h>
#include <stdint.h>

typedef struct message_count {
    int allreduces, iallreduces, broadcasts;
    int dups;      /* of communicators */
    int others;    /* every other call that communicates */
    int64_t bytes; /* of the sums and broadcasts, as handed over by this process */
    bool mixed;    /* sums of different lengths went over one communicator, ever */
    bool in_place; /* some sum was received where it was sent from */
} message_count;

/* Forget what was counted. */
void count_start(void);

/* What this process called since. */
message_count count_read(void);

#endif

/* What the examples share: how they stop, how they check a claim, numbers to work on. */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>

#include <syncbn.h>

/* An error ends the job, so that no process waits for one that left. */
#define TRY(call)                                                                        \
    do {                                                                                 \
        if ((call) != SBN_OK) {                                                          \
            fprintf(stderr, "%s: %s\n", #call, sbn_last_error());                        \
            MPI_Abort(MPI_COMM_WORLD, 1);                                                \
        }                                                                                \
    } while (0)

/* Is it so on every process? Process 0 says. Returns the number of claims that failed. */
static inline int claim(bool mine, const char *text)
{
    int all = mine, rank;
    MPI_Allreduce(MPI_IN_PLACE, &all, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank == 0) printf("%s: %s\n", all ? "true" : "NOT TRUE", text);
    return !all;
}

/* A number in -1 … 1 that follows from its index alone: any process can make any sample.
 * (The mixer of splitmix64.) */
static inline float number(int64_t index)
{
    uint64_t z = ((uint64_t)index + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (float)((double)(z >> 11) * 0x1p-52 - 1.0);
}

#endif

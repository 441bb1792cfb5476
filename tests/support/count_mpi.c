#include "support/count_mpi.h"

#include <mpi.h>

enum { COMMS = 64 };
static message_count counted;
static bool mixed;

void count_start(void)
{
    counted = (message_count){0};
}

message_count count_read(void)
{
    counted.mixed = mixed;
    return counted;
}

static int64_t length(int count, MPI_Datatype type)
{
    int size;
    PMPI_Type_size(type, &size);
    return (int64_t)count * size;
}

/* Communicators that carried sums, with their length; 0: a free place. */
static struct {
    MPI_Comm comm;
    int count;
} seen[COMMS];

static void note_length(MPI_Comm comm, int count)
{
    for (int i = 0; i < COMMS; i++)
        if (seen[i].count && seen[i].comm == comm) {
            mixed |= seen[i].count != count;
            return;
        }
    for (int i = 0; i < COMMS; i++) {
        if (seen[i].count) continue;
        seen[i].comm = comm;
        seen[i].count = count;
        return;
    }
    mixed = true; /* no room to tell */
}

static void note_sum(const void *send, const void *receive, int count, MPI_Datatype type,
                     MPI_Op op, MPI_Comm comm)
{
    if (op == MPI_SUM && type == MPI_INT64_T) note_length(comm, count);
    const char *a = send, *b = receive;
    int64_t bytes = length(count, type);
    counted.bytes += bytes;
    counted.in_place |= send == MPI_IN_PLACE || (a < b + bytes && b < a + bytes);
}

int MPI_Allreduce(const void *send, void *receive, int count, MPI_Datatype type,
                  MPI_Op op, MPI_Comm comm)
{
    counted.allreduces++;
    note_sum(send, receive, count, type, op, comm);
    return PMPI_Allreduce(send, receive, count, type, op, comm);
}

int MPI_Iallreduce(const void *send, void *receive, int count, MPI_Datatype type,
                   MPI_Op op, MPI_Comm comm, MPI_Request *request)
{
    counted.iallreduces++;
    note_sum(send, receive, count, type, op, comm);
    return PMPI_Iallreduce(send, receive, count, type, op, comm, request);
}

int MPI_Bcast(void *data, int count, MPI_Datatype type, int root, MPI_Comm comm)
{
    counted.broadcasts++;
    counted.bytes += length(count, type);
    return PMPI_Bcast(data, count, type, root, comm);
}

/* Another communicator may get the handle. */
int MPI_Comm_free(MPI_Comm *comm)
{
    counted.others++;
    for (int i = 0; i < COMMS; i++)
        if (seen[i].comm == *comm) seen[i].count = 0;
    return PMPI_Comm_free(comm);
}

int MPI_Comm_dup(MPI_Comm comm, MPI_Comm *copy)
{
    counted.dups++;
    return PMPI_Comm_dup(comm, copy);
}

/* The library has no use for the rest in a layer or a step; one that appears shows. */
#define OTHER(name, parameters, arguments)                                               \
    int MPI_##name parameters                                                            \
    {                                                                                    \
        counted.others++;                                                                \
        return PMPI_##name arguments;                                                    \
    }

OTHER(Barrier, (MPI_Comm a), (a))
OTHER(Ibarrier, (MPI_Comm a, MPI_Request *b), (a, b))
OTHER(Ibcast, (void *a, int b, MPI_Datatype c, int d, MPI_Comm e, MPI_Request *f),
      (a, b, c, d, e, f))
OTHER(Reduce,
      (const void *a, void *b, int c, MPI_Datatype d, MPI_Op e, int f, MPI_Comm g),
      (a, b, c, d, e, f, g))
OTHER(Ireduce,
      (const void *a, void *b, int c, MPI_Datatype d, MPI_Op e, int f, MPI_Comm g,
       MPI_Request *h),
      (a, b, c, d, e, f, g, h))
OTHER(Reduce_scatter_block,
      (const void *a, void *b, int c, MPI_Datatype d, MPI_Op e, MPI_Comm f),
      (a, b, c, d, e, f))
OTHER(Reduce_scatter,
      (const void *a, void *b, const int c[], MPI_Datatype d, MPI_Op e, MPI_Comm f),
      (a, b, c, d, e, f))
OTHER(Scan, (const void *a, void *b, int c, MPI_Datatype d, MPI_Op e, MPI_Comm f),
      (a, b, c, d, e, f))
OTHER(Exscan, (const void *a, void *b, int c, MPI_Datatype d, MPI_Op e, MPI_Comm f),
      (a, b, c, d, e, f))
OTHER(Allgather,
      (const void *a, int b, MPI_Datatype c, void *d, int e, MPI_Datatype f, MPI_Comm g),
      (a, b, c, d, e, f, g))
OTHER(Iallgather,
      (const void *a, int b, MPI_Datatype c, void *d, int e, MPI_Datatype f, MPI_Comm g,
       MPI_Request *h),
      (a, b, c, d, e, f, g, h))
OTHER(Allgatherv,
      (const void *a, int b, MPI_Datatype c, void *d, const int e[], const int f[],
       MPI_Datatype g, MPI_Comm h),
      (a, b, c, d, e, f, g, h))
OTHER(Gather,
      (const void *a, int b, MPI_Datatype c, void *d, int e, MPI_Datatype f, int g,
       MPI_Comm h),
      (a, b, c, d, e, f, g, h))
OTHER(Gatherv,
      (const void *a, int b, MPI_Datatype c, void *d, const int e[], const int f[],
       MPI_Datatype g, int h, MPI_Comm i),
      (a, b, c, d, e, f, g, h, i))
OTHER(Scatter,
      (const void *a, int b, MPI_Datatype c, void *d, int e, MPI_Datatype f, int g,
       MPI_Comm h),
      (a, b, c, d, e, f, g, h))
OTHER(Scatterv,
      (const void *a, const int b[], const int c[], MPI_Datatype d, void *e, int f,
       MPI_Datatype g, int h, MPI_Comm i),
      (a, b, c, d, e, f, g, h, i))
OTHER(Alltoall,
      (const void *a, int b, MPI_Datatype c, void *d, int e, MPI_Datatype f, MPI_Comm g),
      (a, b, c, d, e, f, g))
OTHER(Send, (const void *a, int b, MPI_Datatype c, int d, int e, MPI_Comm f),
      (a, b, c, d, e, f))
OTHER(Ssend, (const void *a, int b, MPI_Datatype c, int d, int e, MPI_Comm f),
      (a, b, c, d, e, f))
OTHER(Isend,
      (const void *a, int b, MPI_Datatype c, int d, int e, MPI_Comm f, MPI_Request *g),
      (a, b, c, d, e, f, g))
OTHER(Recv, (void *a, int b, MPI_Datatype c, int d, int e, MPI_Comm f, MPI_Status *g),
      (a, b, c, d, e, f, g))
OTHER(Irecv, (void *a, int b, MPI_Datatype c, int d, int e, MPI_Comm f, MPI_Request *g),
      (a, b, c, d, e, f, g))
OTHER(Sendrecv,
      (const void *a, int b, MPI_Datatype c, int d, int e, void *f, int g, MPI_Datatype h,
       int i, int j, MPI_Comm k, MPI_Status *l),
      (a, b, c, d, e, f, g, h, i, j, k, l))
OTHER(Start, (MPI_Request * a), (a))
OTHER(Startall, (int a, MPI_Request b[]), (a, b))
OTHER(Comm_split, (MPI_Comm a, int b, int c, MPI_Comm *d), (a, b, c, d))
OTHER(Comm_split_type, (MPI_Comm a, int b, int c, MPI_Info d, MPI_Comm *e),
      (a, b, c, d, e))

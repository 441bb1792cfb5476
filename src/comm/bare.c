#include "comm/bare.h"

#include <time.h>

enum { REST_NS = 2000000 };

sbn_status sbni_bare_barrier(sbn_group *group)
{
    return sbni_mpi(MPI_Barrier(group->comm), "MPI_Barrier");
}

sbn_status sbni_bare_sum(sbn_group *group, const int64_t *send, int64_t words,
                         int64_t *sum)
{
    return sbni_mpi(
        MPI_Allreduce(send, sum, (int)words, MPI_INT64_T, MPI_SUM, group->comm),
        "MPI_Allreduce");
}

sbn_status sbni_bare_slowest(sbn_group *group, const double *mine, int n, double *slowest)
{
    return sbni_mpi(MPI_Allreduce(mine, slowest, n, MPI_DOUBLE, MPI_MAX, group->comm),
                    "MPI_Allreduce");
}

sbn_status sbni_bare_rest(sbn_group *group)
{
    const struct timespec nap = {0, REST_NS};
    MPI_Request request;
    SBN_TRY(sbni_mpi(MPI_Ibarrier(group->comm, &request), "MPI_Ibarrier"));
    for (int done = 0;;) {
        SBN_TRY(sbni_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test"));
        if (done) return SBN_OK;
        nanosleep(&nap, NULL);
    }
}

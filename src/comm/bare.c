#include "comm/bare.h"

sbn_status sbni_bare_barrier(sbn_group *group)
{
    SBN_TRY(sbni_call_enter(group, "barrier", 0));
    int code = MPI_Barrier(group->comm);
    sbni_call_goes_on(group);
    return sbni_mpi(code, "MPI_Barrier");
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

#include "comm/hostmem.h"

sbni_hostmem sbni_hostmem_none(void)
{
    return (sbni_hostmem){.comm = MPI_COMM_NULL, .window = MPI_WIN_NULL};
}

static sbn_status create(sbn_group *group, int64_t bytes, sbni_hostmem *memory)
{
    SBN_TRY(sbni_mpi(MPI_Comm_split_type(group->comm, MPI_COMM_TYPE_SHARED, group->rank,
                                         MPI_INFO_NULL, &memory->comm),
                     "MPI_Comm_split_type"));
    MPI_Comm_rank(memory->comm, &memory->rank);
    MPI_Comm_size(memory->comm, &memory->size);
    void *mine;
    SBN_TRY(sbni_mpi(MPI_Win_allocate_shared(memory->rank == 0 ? (MPI_Aint)bytes : 0, 1,
                                             MPI_INFO_NULL, memory->comm, &mine,
                                             &memory->window),
                     "MPI_Win_allocate_shared"));
    MPI_Aint size;
    int unit;
    return sbni_mpi(MPI_Win_shared_query(memory->window, 0, &size, &unit, &memory->data),
                    "MPI_Win_shared_query");
}

sbn_status sbni_hostmem_create(sbn_group *group, int64_t bytes, sbni_hostmem *memory)
{
    *memory = sbni_hostmem_none();
    memory->group = group;
    SBN_TRY(sbni_call_enter(group, "sharing memory", bytes));
    sbn_status status = create(group, bytes, memory);
    sbni_call_goes_on(group);
    return status;
}

sbn_status sbni_hostmem_publish(sbni_hostmem *memory)
{
    /* a fence separates the writer's stores from the others' loads */
    SBN_TRY(sbni_call_enter(memory->group, "publishing memory", 0));
    int code = MPI_Win_fence(0, memory->window);
    sbni_call_goes_on(memory->group);
    return sbni_mpi(code, "MPI_Win_fence");
}

void sbni_hostmem_destroy(sbni_hostmem *memory)
{
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (finalized || memory->comm == MPI_COMM_NULL || !memory->comm) return;
    sbni_call_enter(memory->group, "freeing memory", 0);
    if (memory->window != MPI_WIN_NULL) MPI_Win_free(&memory->window);
    MPI_Comm_free(&memory->comm);
    sbni_call_goes_on(memory->group);
}

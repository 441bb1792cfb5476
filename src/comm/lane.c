#include "comm/lane.h"

#include <stddef.h>

#include "comm/hostmem.h"
#include "core/memory.h"

static int64_t bytes_of(const sbn_group *group)
{
    return group->size * (int64_t)sizeof(sbni_begun);
}

sbn_status sbni_lane_join(sbn_group *group, int64_t words, sbni_lane *spare,
                          sbni_lane **lane)
{
    sbni_lane *found = group->lanes;
    while (found && found->words != words) found = found->next;
    if (found) {
        *lane = found;
        sbni_free(spare);
        return SBN_OK;
    }
    *spare = (sbni_lane){.group = group, .words = words, .comm = MPI_COMM_NULL};
    sbn_status status = sbni_call_enter(group, "connecting a layer", words);
    if (status != SBN_OK) {
        sbni_free(spare);
        return status;
    }
    if (group->by_memory) spare->begun = sbni_hostmem_map(group->comm, bytes_of(group));
    sbni_call_goes_on(group);
    spare->next = group->lanes;
    *lane = group->lanes = spare;
    return SBN_OK;
}

sbn_status sbni_lane_dup(sbni_lane *lane)
{
    if (lane->comm != MPI_COMM_NULL) return SBN_OK;
    SBN_TRY(sbni_call_enter(lane->group, "connecting a layer", lane->words));
    int code = MPI_Comm_dup(lane->group->comm, &lane->comm);
    sbni_call_goes_on(lane->group);
    return sbni_mpi(code, "MPI_Comm_dup");
}

void sbni_lane_free_all(sbn_group *group)
{
    int finalized = 0;
    MPI_Finalized(&finalized);
    for (sbni_lane *lane = group->lanes, *next; lane; lane = next) {
        next = lane->next;
        if (!finalized && lane->comm != MPI_COMM_NULL) MPI_Comm_free(&lane->comm);
        sbni_hostmem_unmap(lane->begun, bytes_of(group));
        sbni_free(lane);
    }
    group->lanes = NULL;
}

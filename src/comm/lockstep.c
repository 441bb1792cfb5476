#include "comm/lockstep.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/alike.h"

bool sbni_lockstep_is_wanted(void)
{
    const char *text = getenv("SBN_CHECK_COLLECTIVES");
    return text && *text && strcmp(text, "0") != 0;
}

sbn_status sbni_lockstep_begin(sbn_group *group)
{
    SBN_TRY(sbni_mpi(MPI_Comm_dup(group->comm, &group->check), "MPI_Comm_dup"));
    group->checks = group->size > 1;
    return SBN_OK;
}

/* All processes are in here, and in nothing else of the group: its own messages are safe.
 */
static sbn_status tell(sbn_group *group, const sbni_call *call)
{
    char text[128], list[384];
    group->checks = false;
    group->broken = true;
    char layer[32] = "";
    if (call->layer) snprintf(layer, sizeof layer, "layer %" PRId64 ", ", call->layer);
    snprintf(text, sizeof text, "%.*s (%scall %" PRId64 ", %" PRId64 " words)",
             SBNI_CALL_TEXT, call->text, layer, call->call, call->words);
    SBN_TRY(sbni_alike_tell(group, sbni_call_digest(call), text, list, sizeof list));
    return sbni_fail(SBN_E_MISMATCH,
                     "the processes are not in the same call, number %" PRIu64
                     " of their group: %s",
                     group->checked, list);
}

sbn_status sbni_lockstep(sbn_group *group, const sbni_call *call)
{
    SBN_CHECK(!group->broken || group->telling, SBN_E_MISMATCH,
              "%.*s: the group's processes were not in the same call before",
              SBNI_CALL_TEXT, call->text);
    if (!group->checks) return SBN_OK;
    /* ~ turns the minimum into a maximum */
    uint64_t digest = sbni_call_digest(call);
    int64_t mine[2] = {(int64_t)digest, (int64_t)~digest}, least[2];
    group->checked++;
    SBN_TRY(sbni_mpi(MPI_Allreduce(mine, least, 2, MPI_INT64_T, MPI_MIN, group->check),
                     "MPI_Allreduce"));
    if (least[0] == ~least[1]) return SBN_OK;
    group->telling = true;
    sbn_status status = tell(group, call);
    group->telling = false;
    return status;
}

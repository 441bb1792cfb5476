#include "train/replicas.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "comm/group.h"
#include "core/memory.h"
#include "train/evaluate.h"

static int64_t digest_of(const sbn_model *model, sbn_optimizer *optimizer)
{
    int n;
    const sbn_model_tensor *t = sbn_model_tensors(model, &n);
    uint64_t sum = (uint64_t)sbni_model_digest(model);
    for (int k = 0; k < sbn_optimizer_states(optimizer); k++)
        for (int i = 0; i < n && t[i].grad; i++)
            sum = XXH3_64bits_withSeed(sbn_optimizer_state(optimizer, i, k),
                                       (size_t)t[i].count * sizeof(float), sum);
    return (int64_t)sum;
}

/* The value of more than half of them, if there is one; votes that cancel leave it. */
static bool majority(const int64_t *values, int n, int64_t *value)
{
    int lead = 0, votes = 0;
    for (int i = 0; i < n; i++) {
        if (lead == 0) *value = values[i];
        lead += values[i] == *value ? 1 : -1;
    }
    for (int i = 0; i < n; i++) votes += values[i] == *value;
    return 2 * votes > n;
}

static sbn_status blame(const int64_t *digests, int size, int rank, int64_t step)
{
    int64_t common = 0;
    bool most = majority(digests, size, &common);
    if (most && digests[rank] == common) return SBN_OK;
    char odd[160] = "", host[256] = "";
    int used = 0, count = 0;
    for (int i = 0; i < size; i++) {
        if (most && digests[i] == common) continue;
        if (used < (int)sizeof odd - 16)
            used += snprintf(odd + used, sizeof odd - (size_t)used, "%s%d",
                             count ? ", " : "", i);
        count++;
    }
    gethostname(host, sizeof host - 1);
    if (!most)
        return sbni_fail(SBN_E_STATE,
                         "behind step %" PRId64 " the processes %s hold different "
                         "weights; memory or processor of one of their hosts (%s) may "
                         "fail; go on from the last checkpoint with --resume",
                         step, odd, host);
    return sbni_fail(SBN_E_STATE,
                     "behind step %" PRId64 " the weights of process%s %s are not those "
                     "of the other %d; memory or processor of host %s may fail, or "
                     "differ in kind; go on elsewhere from the last checkpoint with "
                     "--resume",
                     step, count > 1 ? "es" : "", odd, size - count, host);
}

sbn_status sbni_replicas_check(sbn_group *group, const sbn_model *model,
                               sbn_optimizer *optimizer, int64_t step)
{
    int64_t mine = digest_of(model, optimizer), least, greatest, *digests = NULL;
    int size = sbn_group_size(group);
    SBN_TRY(sbni_group_range(group, mine, &least, &greatest));
    if (least == greatest) return SBN_OK;
    SBN_TRY(
        sbn_group_agree(group, sbni_alloc(size, sizeof *digests, "digests", &digests)));
    sbn_status status = sbni_group_gather(group, mine, digests);
    if (status == SBN_OK)
        status =
            sbn_group_agree(group, blame(digests, size, sbn_group_rank(group), step));
    sbni_free(digests);
    return status;
}

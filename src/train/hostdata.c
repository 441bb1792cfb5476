#include "train/hostdata.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/* Load on the host's leader; others wait in the caller's agreement. */
static sbn_status load(const char *spec, sbn_split split, sbni_hostdata *data)
{
    if (!data->memory.leader) return SBN_OK;
    return sbn_dataset_load(spec, split, &data->info, data->memory.data);
}

sbn_status sbni_hostdata_open(const char *spec, sbn_split split, uint64_t seed,
                              sbn_group *group, sbni_hostdata *data)
{
    *data = (sbni_hostdata){.memory = sbni_hostmem_none()};
    int64_t bytes = 0;
    sbn_status status;
    SBN_GOTO(sbn_group_agree(group, sbn_dataset_probe(spec, split, &data->info, &bytes)));
    SBN_GOTO(sbni_group_check_same(group, bytes, "size of the data set"));
    data->digest = seed;
    if (bytes > 0) {
        SBN_GOTO(
            sbn_group_agree(group, sbni_hostmem_create(group, bytes, &data->memory)));
        SBN_GOTO(sbn_group_agree(group, load(spec, split, data)));
        SBN_GOTO(sbni_hostmem_publish(&data->memory));
        data->digest = XXH3_64bits(data->memory.data, (size_t)bytes);
    }
    SBN_GOTO(sbni_group_check_same(group, (int64_t)(data->digest >> 1), "the data set"));
    SBN_GOTO(sbn_group_agree(group, sbn_dataset_create(spec, split, &data->info,
                                                       data->memory.data, seed,
                                                       &data->dataset)));
    return SBN_OK;
fail:
    sbni_hostdata_close(data);
    return status;
}

void sbni_hostdata_close(sbni_hostdata *data)
{
    sbn_dataset_destroy(&data->dataset);
    sbni_hostmem_destroy(&data->memory);
}

#include "train/hostdata.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "comm/alike.h"
#include "core/memory.h"

/* Where the digest lies. */
static uint64_t *digest_of(const sbni_hostdata *data)
{
    return (uint64_t *)((char *)data->memory.data + (data->bytes + 7) / 8 * 8);
}

static sbn_status reserve(const char *spec, sbn_split split, sbn_group *group,
                          sbni_hostdata *data)
{
    SBN_TRY(sbn_group_agree(group,
                            sbn_dataset_probe(spec, split, &data->info, &data->bytes)));
    SBN_TRY(sbni_group_check_same(group, data->bytes, "size of the data set"));
    if (data->bytes == 0) return SBN_OK;
    return sbn_group_agree(group,
                           sbni_hostmem_create(group, data->bytes + 16, &data->memory));
}

/* What falls to this process of its host; others wait in the caller's agreement. */
static sbn_status load(const char *spec, const sbn_split *splits, int n,
                       sbni_hostdata *data)
{
    for (int i = 0; i < n; i++) {
        const sbni_hostmem *memory = &data[i].memory;
        if (data[i].bytes == 0 || memory->rank != i % memory->size) continue;
        SBN_TRY(sbn_dataset_load(spec, splits[i], &data[i].info, memory->data));
        *digest_of(&data[i]) = XXH3_64bits(memory->data, (size_t)data[i].bytes);
    }
    return SBN_OK;
}

static sbn_status finish(const char *spec, sbn_split split, uint64_t seed,
                         sbn_group *group, sbni_hostdata *data)
{
    data->digest = seed;
    if (data->bytes > 0) {
        SBN_TRY(sbni_hostmem_publish(&data->memory));
        data->digest = *digest_of(data);
    }
    SBN_TRY(sbni_group_check_same(group, (int64_t)(data->digest >> 1), "the data set"));
    return sbn_group_agree(group,
                           sbn_dataset_create(spec, split, &data->info, data->memory.data,
                                              seed, &data->dataset));
}

sbn_status sbni_hostdata_open(const char *spec, const sbn_split *splits, int n,
                              uint64_t seed, sbn_group *group, sbni_hostdata *data)
{
    for (int i = 0; i < n; i++) data[i] = (sbni_hostdata){.memory = sbni_hostmem_none()};
    for (int i = 0; i < n; i++) SBN_TRY(reserve(spec, splits[i], group, &data[i]));
    SBN_TRY(sbni_group_agree_asleep(group, load(spec, splits, n, data)));
    for (int i = 0; i < n; i++) SBN_TRY(finish(spec, splits[i], seed, group, &data[i]));
    return SBN_OK;
}

void sbni_hostdata_close(sbni_hostdata *data)
{
    sbn_dataset_destroy(&data->dataset);
    sbni_hostmem_destroy(&data->memory);
}

sbn_status sbni_hostdata_sampler(const sbni_hostdata *data, const sbn_trainer_config *cfg,
                                 int64_t n, sbn_sampler **sampler)
{
    if (!cfg->classes)
        return sbn_sampler_create(n, cfg->batch, cfg->drop_last, cfg->seed, sampler);
    int64_t *index = NULL;
    int32_t *labels = NULL;
    sbn_status status;
    SBN_GOTO(sbni_alloc(n, sizeof *index, "labels", &index));
    SBN_GOTO(sbni_alloc(n, sizeof *labels, "labels", &labels));
    for (int64_t i = 0; i < n; i++) index[i] = i;
    sbn_dataset_labels(data->dataset, index, n, labels);
    int64_t group = cfg->norm_batch == SBN_NORM_BATCH_ALL ? cfg->batch : cfg->norm_batch;
    sbn_sampler_classes classes = {labels, cfg->classes, group};
    status = sbn_sampler_create_classes(n, cfg->batch, &classes, cfg->seed, sampler);
fail:
    sbni_free(index);
    sbni_free(labels);
    return status;
}

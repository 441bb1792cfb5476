#include "syncbn/data.h"

#include <inttypes.h>
#include <stddef.h>

#include "core/memory.h"
#include "core/rng.h"

struct sbn_sampler {
    int64_t n, batch, steps; /* steps of one epoch */
    uint64_t seed;
    int64_t epoch;  /* whose permutation `order` holds; -1: none yet */
    int64_t *order; /* (n) */
};

sbn_status sbn_sampler_create(int64_t n, int64_t batch, bool drop_last, uint64_t seed,
                              sbn_sampler **sampler)
{
    SBN_CHECK(sampler != NULL, SBN_E_ARG,
              "sbn_sampler_create: expected a place for the sampler");
    *sampler = NULL;
    SBN_CHECK(n >= 1, SBN_E_ARG, "sampler: expected at least 1 sample, got %" PRId64, n);
    SBN_CHECK(batch >= 1 && batch <= n, SBN_E_ARG,
              "sampler: expected a batch of 1 to %" PRId64 " samples, got %" PRId64, n,
              batch);
    sbn_sampler *s;
    sbn_status status;
    SBN_TRY(sbni_alloc(1, sizeof *s, "sampler", &s));
    SBN_GOTO(sbni_alloc(n, sizeof *s->order, "order of samples", &s->order));
    s->n = n;
    s->batch = batch;
    s->steps = n / batch + (!drop_last && n % batch != 0);
    s->seed = seed;
    s->epoch = -1;
    *sampler = s;
    return SBN_OK;
fail:
    sbn_sampler_destroy(&s);
    return status;
}

void sbn_sampler_destroy(sbn_sampler **sampler)
{
    if (!sampler || !*sampler) return;
    sbni_free((*sampler)->order);
    sbni_free(*sampler);
    *sampler = NULL;
}

int64_t sbn_sampler_steps(const sbn_sampler *sampler)
{
    return sampler->steps;
}

/* Uniform in 0 … n-1. A draw in the incomplete last run of n values is thrown away, as a
 * remainder of it would favour small numbers. */
static int64_t draw_below(sbni_rng_key key, int64_t index, int64_t n)
{
    const uint64_t bound = (uint64_t)n, whole = UINT64_MAX - UINT64_MAX % bound;
    for (uint32_t draw = 0;; draw++) {
        uint64_t x = sbni_rng_u64(key, (uint64_t)index, draw);
        if (x < whole) return (int64_t)(x % bound);
    }
}

/* Fisher-Yates from the inside out: it reads only what it wrote itself, so no epoch
 * depends on the one before. */
static void shuffle(sbn_sampler *sampler, int64_t epoch)
{
    sbni_rng_key key = {
        .seed = sampler->seed, .purpose = SBNI_RNG_SHUFFLE, .epoch = (uint32_t)epoch};
    int64_t *order = sampler->order;
    for (int64_t i = 0; i < sampler->n; i++) {
        int64_t j = draw_below(key, i, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    sampler->epoch = epoch;
}

void sbn_sampler_batch(sbn_sampler *sampler, int64_t step, const int64_t **index,
                       int64_t *n)
{
    int64_t epoch = step / sampler->steps, first = step % sampler->steps * sampler->batch;
    if (epoch != sampler->epoch) shuffle(sampler, epoch);
    int64_t left = sampler->n - first;
    *index = sampler->order + first;
    *n = left < sampler->batch ? left : sampler->batch;
}

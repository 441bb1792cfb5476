#include "syncbn/data.h"

#include <inttypes.h>
#include <stddef.h>

#include "core/memory.h"
#include "core/rng.h"

/* What batches of few classes need beside the order. */
typedef struct queues {
    int64_t classes;   /* K of a group */
    int64_t group;     /* samples of a group */
    int64_t count;     /* classes that there are, with samples or without */
    int64_t *start;    /* (count + 1) where each class begins in members and queue */
    int64_t *members;  /* (n) samples, class by class in their own order */
    int64_t *queue;    /* (n) the same, each class shuffled for the epoch */
    int64_t *taken;    /* (count) samples that the epoch has taken so far */
    int64_t *group_of; /* (count) number of the last group that drew it, from 1 */
} queues;

struct sbn_sampler {
    int64_t n, batch, steps; /* steps of one epoch */
    uint64_t seed;
    int64_t epoch;  /* whose samples `order` holds; -1: none yet */
    int64_t *order; /* (n) */
    queues *queues; /* NULL: every epoch is a permutation */
};

static sbn_status create(int64_t n, int64_t batch, uint64_t seed, sbn_sampler **sampler)
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
    s->steps = n / batch;
    s->seed = seed;
    s->epoch = -1;
    *sampler = s;
    return SBN_OK;
fail:
    sbn_sampler_destroy(&s);
    return status;
}

sbn_status sbn_sampler_create(int64_t n, int64_t batch, bool drop_last, uint64_t seed,
                              sbn_sampler **sampler)
{
    SBN_TRY(create(n, batch, seed, sampler));
    (*sampler)->steps += !drop_last && n % batch != 0;
    return SBN_OK;
}

static sbn_status check_classes(int64_t batch, const sbn_sampler_classes *c)
{
    SBN_CHECK(c && c->labels, SBN_E_ARG, "sampler: expected labels of the samples");
    SBN_CHECK(c->group >= 1 && c->group <= batch, SBN_E_ARG,
              "sampler: expected groups of 1 to %" PRId64 " samples, got %" PRId64, batch,
              c->group);
    SBN_CHECK(c->classes >= 1 && c->group % c->classes == 0, SBN_E_ARG,
              "sampler: expected a number of classes that divides the %" PRId64
              " samples of a norm batch, got %" PRId64,
              c->group, c->classes);
    SBN_CHECK(batch % c->group % c->classes == 0, SBN_E_ARG,
              "sampler: expected a number of classes that divides the %" PRId64
              " samples left for the last norm batch of %" PRId64 ", got %" PRId64,
              batch % c->group, batch, c->classes);
    return SBN_OK;
}

/* Sort the samples by class, each class in the order of its samples. */
static sbn_status sort(int64_t n, const int32_t *labels, queues *q)
{
    for (int64_t i = 0; i < n; i++) q->start[labels[i] + 1]++;
    int64_t present = 0;
    for (int64_t c = 0; c < q->count; c++) {
        present += q->start[c + 1] > 0;
        q->start[c + 1] += q->start[c];
    }
    for (int64_t i = 0; i < n; i++) {
        int32_t c = labels[i];
        q->members[q->start[c] + q->taken[c]++] = i;
    }
    SBN_CHECK(q->classes <= present, SBN_E_ARG,
              "sampler: expected 1 to %" PRId64 " classes, as many as have samples, got "
              "%" PRId64,
              present, q->classes);
    return SBN_OK;
}

static sbn_status create_queues(int64_t n, const sbn_sampler_classes *c, sbn_sampler *s)
{
    queues *q;
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        SBN_CHECK(c->labels[i] >= 0, SBN_E_ARG,
                  "sampler: expected labels from 0, got %d for sample %" PRId64,
                  (int)c->labels[i], i);
        if (c->labels[i] >= count) count = (int64_t)c->labels[i] + 1;
    }
    SBN_TRY(sbni_alloc(1, sizeof *q, "classes of samples", &s->queues));
    q = s->queues;
    q->classes = c->classes;
    q->group = c->group;
    q->count = count;
    SBN_TRY(sbni_alloc(count + 1, sizeof *q->start, "classes of samples", &q->start));
    SBN_TRY(sbni_alloc(n, sizeof *q->members, "classes of samples", &q->members));
    SBN_TRY(sbni_alloc(n, sizeof *q->queue, "classes of samples", &q->queue));
    SBN_TRY(sbni_alloc(count, sizeof *q->taken, "classes of samples", &q->taken));
    SBN_TRY(sbni_alloc(count, sizeof *q->group_of, "classes of samples", &q->group_of));
    return sort(n, c->labels, q);
}

sbn_status sbn_sampler_create_classes(int64_t n, int64_t batch,
                                      const sbn_sampler_classes *classes, uint64_t seed,
                                      sbn_sampler **sampler)
{
    SBN_TRY(create(n, batch, seed, sampler));
    sbn_status status = check_classes(batch, classes);
    if (status == SBN_OK) status = create_queues(n, classes, *sampler);
    if (status != SBN_OK) sbn_sampler_destroy(sampler);
    return status;
}

static void destroy_queues(queues *q)
{
    if (!q) return;
    sbni_free(q->start);
    sbni_free(q->members);
    sbni_free(q->queue);
    sbni_free(q->taken);
    sbni_free(q->group_of);
    sbni_free(q);
}

void sbn_sampler_destroy(sbn_sampler **sampler)
{
    if (!sampler || !*sampler) return;
    destroy_queues((*sampler)->queues);
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

static sbni_rng_key key_of(const sbn_sampler *sampler, sbni_purpose purpose,
                           int64_t epoch)
{
    return (sbni_rng_key){
        .seed = sampler->seed, .purpose = purpose, .epoch = (uint32_t)epoch};
}

/* Fisher-Yates from the inside out: it reads only what it wrote itself, so no epoch
 * depends on the one before. */
static void shuffle(sbn_sampler *sampler, int64_t epoch)
{
    sbni_rng_key key = key_of(sampler, SBNI_RNG_SHUFFLE, epoch);
    int64_t *order = sampler->order;
    for (int64_t i = 0; i < sampler->n; i++) {
        int64_t j = draw_below(key, i, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
}

/* As shuffle, within each class. */
static void shuffle_queues(const sbn_sampler *sampler, int64_t epoch)
{
    sbni_rng_key key = key_of(sampler, SBNI_RNG_SHUFFLE, epoch);
    queues *q = sampler->queues;
    for (int64_t c = 0; c < q->count; c++) {
        int64_t *queue = q->queue + q->start[c];
        for (int64_t i = 0; i < q->start[c + 1] - q->start[c]; i++) {
            int64_t at = q->start[c] + i, j = draw_below(key, at, i + 1);
            queue[i] = queue[j];
            queue[j] = q->members[at];
        }
        q->taken[c] = q->group_of[c] = 0;
    }
}

/* How often a class is in the urn: its samples that wait, or once each when `any`. A
 * class that the group has, or that has no samples, is not in it. */
static int64_t weight(const queues *q, int64_t c, int64_t group, bool any)
{
    int64_t size = q->start[c + 1] - q->start[c], left = size - q->taken[c];
    if (q->group_of[c] == group) return 0;
    if (any) return size > 0;
    return left > 0 ? left : 0;
}

/* One more class for a group. */
static int64_t draw_class(const queues *q, sbni_rng_key key, int64_t index, int64_t group)
{
    int64_t total = 0, c = 0;
    for (int64_t i = 0; i < q->count; i++) total += weight(q, i, group, false);
    bool any = total == 0;
    for (int64_t i = 0; any && i < q->count; i++) total += weight(q, i, group, true);
    int64_t x = draw_below(key, index, total);
    while (x >= weight(q, c, group, any)) x -= weight(q, c++, group, any);
    return c;
}

static void take(queues *q, int64_t c, int64_t n, int64_t *out)
{
    int64_t size = q->start[c + 1] - q->start[c];
    for (int64_t i = 0; i < n; i++) out[i] = q->queue[q->start[c] + q->taken[c]++ % size];
}

static void deal_group(sbn_sampler *sampler, sbni_rng_key key, int64_t group,
                       int64_t size, int64_t *out)
{
    queues *q = sampler->queues;
    int64_t each = size / q->classes;
    for (int64_t k = 0; k < q->classes; k++) {
        int64_t c = draw_class(q, key, (group - 1) * q->classes + k, group);
        q->group_of[c] = group;
        take(q, c, each, out + k * each);
    }
}

/* The epoch's batches, group by group. */
static void deal(sbn_sampler *sampler, int64_t epoch)
{
    sbni_rng_key key = key_of(sampler, SBNI_RNG_CLASSES, epoch);
    int64_t group = 0, batch = sampler->batch, most = sampler->queues->group;
    shuffle_queues(sampler, epoch);
    for (int64_t b = 0; b < sampler->steps * batch; b += batch)
        for (int64_t g = 0; g < batch; g += most)
            deal_group(sampler, key, ++group, batch - g < most ? batch - g : most,
                       sampler->order + b + g);
}

void sbn_sampler_batch(sbn_sampler *sampler, int64_t step, const int64_t **index,
                       int64_t *n)
{
    int64_t epoch = step / sampler->steps, first = step % sampler->steps * sampler->batch;
    if (epoch != sampler->epoch) {
        if (sampler->queues)
            deal(sampler, epoch);
        else
            shuffle(sampler, epoch);
        sampler->epoch = epoch;
    }
    int64_t left = sampler->n - first;
    *index = sampler->order + first;
    *n = left < sampler->batch ? left : sampler->batch;
}

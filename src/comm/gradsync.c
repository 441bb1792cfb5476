#include "comm/gradsync.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/memory.h"

enum {
    FIRST_EXPONENT = -40,
    TOP_BITS = 47,    /* so SBNI_GRADSYNC_SLICES of them fit a word */
    ENOUGH_BITS = 27, /* float32 has 24 */
    MOVE_BITS =
        16, /* less than TOP_BITS - ENOUGH_BITS, so that a move can't swing back */
    LEAST_EXPONENT = -400,
    COUNT_BITS = 21 /* a verdict word counts slices in three fields */
};

/* Tensors that travel in one message: their elements, then a verdict for each. */
typedef struct segment {
    int first, end;     /* tensors */
    int64_t at, length; /* of its words in a thread's array */
    sbni_reduce message;
    bool begun;
} segment;

struct sbni_gradsync {
    int n, threads, segment_count;
    segment *segments;
    char (*names)[64];
    int *segment_of;   /* [n] */
    int64_t *count;    /* [n] elements */
    int64_t *offset;   /* [n] in the words of its segment */
    int64_t *exponent; /* [n] */
    int64_t extra;     /* words behind the last segment's */
    uint32_t calls;
    sbn_status mine; /* the owner's, for the last segment */
    int *bad;        /* [threads] last tensor with NaN or infinity; -1: none */
    bool *empty;     /* [threads][n] no slice has set the words yet */
    uint64_t *
        *words; /* [threads] of all segments; thread 0's lie in the messages: NULL */
};

static segment *last_segment(const sbni_gradsync *s)
{
    return &s->segments[s->segment_count - 1];
}

/* A thread's words of a segment. */
static uint64_t *words_of(const sbni_gradsync *s, const segment *g, int thread)
{
    return thread ? s->words[thread] + g->at : g->message.send + SBNI_HEAD_WORDS;
}

static uint64_t *verdict_of(const sbni_gradsync *s, const segment *g, int thread)
{
    return words_of(s, g, thread) + g->length - (g->end - g->first);
}

/* Places of tensors and segments. */
static void lay_out(const sbni_gradsync_tensor *tensors, sbni_gradsync *s)
{
    int i = 0;
    int64_t at = 0;
    for (int k = 0; k < s->segment_count; k++) {
        segment *g = &s->segments[k];
        g->at = at;
        g->first = i;
        for (; i < s->n && tensors[i].segment == k; i++) {
            strncpy(s->names[i], tensors[i].name, sizeof s->names[i] - 1);
            s->segment_of[i] = k;
            s->count[i] = tensors[i].count;
            s->offset[i] = g->length;
            g->length += tensors[i].count;
            s->exponent[i] = FIRST_EXPONENT;
        }
        g->end = i;
        g->length += g->end - g->first;
        at += g->length;
    }
}

/* Name a message by the layers of its first and last tensor: conv1..dense4. */
static sbn_status label(sbni_reduce *message, const sbni_gradsync_tensor *tensors, int n)
{
    char name[128] = "loss";
    if (n > 0) {
        const char *first = tensors[0].name, *last = tensors[n - 1].name;
        int a = (int)strcspn(first, "."), b = (int)strcspn(last, ".");
        bool one = a == b && strncmp(first, last, (size_t)a) == 0;
        snprintf(name, sizeof name, "%.*s%s%.*s", a, first, one ? "" : "..", one ? 0 : b,
                 last);
    }
    return sbni_reduce_label(message, name, "gradients");
}

static sbn_status create(sbn_group *group, const sbni_gradsync_tensor *tensors,
                         sbni_gradsync *s)
{
    SBN_TRY(sbni_alloc(s->segment_count, sizeof *s->segments, "gradients", &s->segments));
    SBN_TRY(sbni_alloc(s->n, sizeof *s->names, "gradients", &s->names));
    SBN_TRY(sbni_alloc(s->n, sizeof *s->segment_of, "gradients", &s->segment_of));
    SBN_TRY(sbni_alloc(s->n, 8, "gradients", &s->count));
    SBN_TRY(sbni_alloc(s->n, 8, "gradients", &s->offset));
    SBN_TRY(sbni_alloc(s->n, 8, "gradients", &s->exponent));
    SBN_TRY(sbni_alloc(s->threads, sizeof *s->bad, "gradients", &s->bad));
    SBN_TRY(
        sbni_alloc((int64_t)s->threads * s->n, sizeof *s->empty, "gradients", &s->empty));
    SBN_TRY(sbni_alloc(s->threads, sizeof *s->words, "gradients", &s->words));
    lay_out(tensors, s);
    segment *last = last_segment(s);
    for (segment *g = s->segments; g <= last; g++) {
        SBN_TRY(sbni_reduce_create(group, g->length + (g == last ? s->extra : 0),
                                   &g->message));
        SBN_TRY(label(&g->message, tensors + g->first, g->end - g->first));
    }
    for (int t = 1; t < s->threads; t++)
        SBN_TRY(sbni_alloc(last->at + last->length, 8, "gradients", &s->words[t]));
    return SBN_OK;
}

sbn_status sbni_gradsync_create(sbn_group *group, const sbni_gradsync_tensor *tensors,
                                int n, int segments, int threads, int64_t extra,
                                sbni_gradsync **sync)
{
    SBN_TRY(sbni_alloc(1, sizeof **sync, "gradients", sync));
    (*sync)->n = n;
    (*sync)->segment_count = segments;
    (*sync)->threads = threads;
    (*sync)->extra = extra;
    sbn_status status = create(group, tensors, *sync);
    if (status != SBN_OK) sbni_gradsync_destroy(sync);
    return status;
}

sbn_status sbni_gradsync_connect(sbni_gradsync *s)
{
    for (int k = 0; k < s->segment_count; k++)
        SBN_TRY(sbni_reduce_connect(&s->segments[k].message));
    return SBN_OK;
}

void sbni_gradsync_destroy(sbni_gradsync **sync)
{
    if (!sync || !*sync) return;
    sbni_gradsync *s = *sync;
    for (int t = 1; s->words && t < s->threads; t++) sbni_free(s->words[t]);
    for (int k = 0; s->segments && k < s->segment_count; k++)
        sbni_reduce_destroy(&s->segments[k].message);
    void *parts[] = {s->segments, s->names,    s->segment_of, s->count, s->offset,
                     s->words,    s->exponent, s->bad,        s->empty};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) sbni_free(parts[i]);
    sbni_free(s);
    *sync = NULL;
}

void sbni_gradsync_clear(sbni_gradsync *s)
{
    s->calls++;
    s->mine = SBN_OK;
    for (int k = 0; k < s->segment_count; k++) {
        const segment *g = &s->segments[k];
        sbni_reduce_open(&s->segments[k].message,
                         s->calls * 0x9e3779b1u + (uint32_t)k * 0x85ebca77u);
        for (int t = 0; t < s->threads; t++)
            memset(verdict_of(s, g, t), 0, (size_t)(g->end - g->first) * 8);
    }
    memset(sbni_gradsync_extra(s), 0, (size_t)s->extra * 8);
    for (int t = 0; t < s->threads; t++) s->bad[t] = -1;
    memset(s->empty, true, (size_t)s->threads * (size_t)s->n);
}

static uint64_t *tensor_words(const sbni_gradsync *s, int thread, int tensor)
{
    return words_of(s, &s->segments[s->segment_of[tensor]], thread) + s->offset[tensor];
}

uint64_t *sbni_gradsync_words(sbni_gradsync *s, int thread, int tensor, bool *first)
{
    bool *empty = &s->empty[thread * s->n + tensor];
    *first = *empty;
    *empty = false;
    return tensor_words(s, thread, tensor);
}

double sbni_gradsync_scale(const sbni_gradsync *s, int tensor)
{
    return ldexp(1, (int)-s->exponent[tensor]);
}

double sbni_gradsync_unit(const sbni_gradsync *s, int tensor)
{
    return ldexp(1, (int)s->exponent[tensor]);
}

void sbni_gradsync_note(sbni_gradsync *s, int thread, int tensor, double largest)
{
    if (!isfinite(largest)) {
        /* the last tensor is the one nearest to the loss: NaN spreads backward from it */
        if (tensor > s->bad[thread]) s->bad[thread] = tensor;
        return;
    }
    if (largest == 0) return;
    double units = largest * sbni_gradsync_scale(s, tensor);
    int field = units >= ldexp(1, TOP_BITS) ? 2 : units >= ldexp(1, ENOUGH_BITS) ? 1 : 0;
    const segment *g = &s->segments[s->segment_of[tensor]];
    verdict_of(s, g, thread)[tensor - g->first] += UINT64_C(1) << (field * COUNT_BITS);
}

uint64_t *sbni_gradsync_extra(sbni_gradsync *s)
{
    const segment *g = last_segment(s);
    return words_of(s, g, 0) + g->length;
}

/* Summed words of a segment. */
static const uint64_t *sum_of(const segment *g)
{
    return g->message.sum + SBNI_HEAD_WORDS;
}

const uint64_t *sbni_gradsync_extra_sum(const sbni_gradsync *s)
{
    const segment *g = last_segment(s);
    return sum_of(g) + g->length;
}

const uint64_t *sbni_gradsync_sum(const sbni_gradsync *s, int tensor)
{
    return sum_of(&s->segments[s->segment_of[tensor]]) + s->offset[tensor];
}

int64_t *sbni_gradsync_exponents(sbni_gradsync *s)
{
    return s->exponent;
}

int64_t sbni_gradsync_bytes(const sbni_gradsync *s)
{
    int64_t bytes = 0;
    for (int k = 0; k < s->segment_count; k++)
        bytes += sbni_reduce_bytes(&s->segments[k].message) +
                 8 * (s->threads - 1) * s->segments[k].length;
    return bytes;
}

/* Move the exponents of tensors whose units did not fit. */
static bool move_exponents(sbni_gradsync *s)
{
    const uint64_t field = (UINT64_C(1) << COUNT_BITS) - 1;
    bool moved = false;
    for (int i = 0; i < s->n; i++) {
        const segment *g = &s->segments[s->segment_of[i]];
        uint64_t verdict = sum_of(g)[g->length - g->end + i];
        bool high = verdict >> (2 * COUNT_BITS) & field,
             good = verdict >> COUNT_BITS & field, low = verdict & field;
        if (high)
            s->exponent[i] += MOVE_BITS;
        else if (low && !good && s->exponent[i] > LEAST_EXPONENT)
            s->exponent[i] -= MOVE_BITS;
        else
            continue;
        moved = true;
    }
    return moved;
}

/* The last bad tensor of a segment; -1: none. Segments come last first, so a thread's
 * last bad one hides none of a segment that is still to come. */
static int bad_of(const sbni_gradsync *s, const segment *g)
{
    int bad = -1;
    for (int t = 0; t < s->threads; t++)
        if (s->bad[t] > bad && s->bad[t] >= g->first && s->bad[t] < g->end)
            bad = s->bad[t];
    return bad;
}

/* Words that no slice has set. */
static void clear_empty(sbni_gradsync *s, const segment *g, int thread)
{
    for (int i = g->first; i < g->end; i++)
        if (s->empty[thread * s->n + i])
            memset(tensor_words(s, thread, i), 0, (size_t)s->count[i] * 8);
}

/* Everything of a segment before its message. */
static void prepare(sbni_gradsync *s, segment *g)
{
    uint64_t *sum = words_of(s, g, 0);
    for (int t = 0; t < s->threads; t++) clear_empty(s, g, t);
    for (int t = 1; t < s->threads; t++) {
        const uint64_t *words = words_of(s, g, t);
        for (int64_t k = 0; k < g->length; k++) sum[k] += words[k];
    }
    bool failed = bad_of(s, g) >= 0 || (g == last_segment(s) && s->mine != SBN_OK);
    g->message.send[SBNI_HEAD_FAILED] = failed;
}

/* Everything after the messages. */
static sbn_status finish(sbni_gradsync *s, bool *again)
{
    for (int k = s->segment_count - 1; k >= 0; k--) {
        segment *g = &s->segments[k];
        sbn_status mine = g == last_segment(s) ? s->mine : SBN_OK;
        int bad = bad_of(s, g);
        if (bad >= 0 && mine == SBN_OK)
            mine = sbni_fail(SBN_E_NONFINITE, "gradient of %s is NaN or infinite",
                             s->names[bad]);
        SBN_TRY(sbni_reduce_verdict(&g->message, mine, "gradients"));
    }
    *again = move_exponents(s);
    return SBN_OK;
}

sbn_status sbni_gradsync_run(sbni_gradsync *s, sbn_status mine, bool *again)
{
    s->mine = mine;
    for (int k = s->segment_count - 1; k >= 0; k--) {
        prepare(s, &s->segments[k]);
        SBN_TRY(sbni_reduce_run(&s->segments[k].message));
    }
    return finish(s, again);
}

sbn_status sbni_gradsync_begin(sbni_gradsync *s, int which, sbn_status mine)
{
    segment *g = &s->segments[which];
    if (g == last_segment(s)) s->mine = mine;
    prepare(s, g);
    SBN_TRY(sbni_reduce_begin(&g->message));
    g->begun = true;
    return SBN_OK;
}

sbn_status sbni_gradsync_wait(sbni_gradsync *s)
{
    sbn_status status = SBN_OK;
    for (int k = s->segment_count - 1; k >= 0; k--) {
        if (!s->segments[k].begun) continue;
        s->segments[k].begun = false;
        sbn_status one = sbni_reduce_end(&s->segments[k].message);
        if (status == SBN_OK) status = one;
    }
    return status;
}

sbn_status sbni_gradsync_end(sbni_gradsync *s, bool *again)
{
    SBN_TRY(sbni_gradsync_wait(s));
    return finish(s, again);
}

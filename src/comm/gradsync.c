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

struct sbni_gradsync {
    int n, threads;
    char (*names)[64];
    int64_t *offset;   /* [n+1] */
    int64_t *exponent; /* [n] */
    int64_t extra;
    uint32_t calls;
    int *bad;         /* [threads] last tensor with NaN or infinity; -1: none */
    uint64_t **words; /* [threads] sums [offset[n]] then verdicts [n]; thread 0's lie in
                         the message */
    sbni_reduce message;
};

static int64_t thread_words(const sbni_gradsync *s)
{
    return s->offset[s->n] + s->n;
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
    SBN_TRY(sbni_alloc(s->n, sizeof *s->names, "gradients", &s->names));
    SBN_TRY(sbni_alloc(s->n + 1, 8, "gradients", &s->offset));
    SBN_TRY(sbni_alloc(s->n, 8, "gradients", &s->exponent));
    SBN_TRY(sbni_alloc(s->threads, sizeof *s->bad, "gradients", &s->bad));
    SBN_TRY(sbni_alloc(s->threads, sizeof *s->words, "gradients", &s->words));
    for (int i = 0; i < s->n; i++) {
        strncpy(s->names[i], tensors[i].name, sizeof s->names[i] - 1);
        s->offset[i + 1] = s->offset[i] + tensors[i].count;
        s->exponent[i] = FIRST_EXPONENT;
    }
    SBN_TRY(sbni_reduce_create(group, thread_words(s) + s->extra, &s->message));
    SBN_TRY(label(&s->message, tensors, s->n));
    s->words[0] = s->message.send + SBNI_HEAD_WORDS;
    for (int t = 1; t < s->threads; t++)
        SBN_TRY(sbni_alloc(thread_words(s), 8, "gradients", &s->words[t]));
    return SBN_OK;
}

sbn_status sbni_gradsync_create(sbn_group *group, const sbni_gradsync_tensor *tensors,
                                int n, int threads, int64_t extra, sbni_gradsync **sync)
{
    SBN_TRY(sbni_alloc(1, sizeof **sync, "gradients", sync));
    (*sync)->n = n;
    (*sync)->threads = threads;
    (*sync)->extra = extra;
    sbn_status status = create(group, tensors, *sync);
    if (status != SBN_OK) sbni_gradsync_destroy(sync);
    return status;
}

sbn_status sbni_gradsync_connect(sbni_gradsync *s)
{
    return sbni_reduce_connect(&s->message);
}

void sbni_gradsync_destroy(sbni_gradsync **sync)
{
    if (!sync || !*sync) return;
    sbni_gradsync *s = *sync;
    for (int t = 1; s->words && t < s->threads; t++) sbni_free(s->words[t]);
    sbni_reduce_destroy(&s->message);
    sbni_free(s->words);
    sbni_free(s->bad);
    sbni_free(s->exponent);
    sbni_free(s->offset);
    sbni_free(s->names);
    sbni_free(s);
    *sync = NULL;
}

void sbni_gradsync_clear(sbni_gradsync *s)
{
    sbni_reduce_clear(&s->message, ++s->calls * 0x9e3779b1u);
    for (int t = 1; t < s->threads; t++)
        memset(s->words[t], 0, (size_t)thread_words(s) * 8);
    for (int t = 0; t < s->threads; t++) s->bad[t] = -1;
}

uint64_t *sbni_gradsync_words(sbni_gradsync *s, int thread, int tensor)
{
    return s->words[thread] + s->offset[tensor];
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
    s->words[thread][s->offset[s->n] + tensor] += UINT64_C(1) << (field * COUNT_BITS);
}

uint64_t *sbni_gradsync_extra(sbni_gradsync *s)
{
    return s->words[0] + thread_words(s);
}

const uint64_t *sbni_gradsync_extra_sum(const sbni_gradsync *s)
{
    return s->message.sum + SBNI_HEAD_WORDS + thread_words(s);
}

const uint64_t *sbni_gradsync_sum(const sbni_gradsync *s, int tensor)
{
    return s->message.sum + SBNI_HEAD_WORDS + s->offset[tensor];
}

int64_t *sbni_gradsync_exponents(sbni_gradsync *s)
{
    return s->exponent;
}

/* Move the exponents of tensors whose units did not fit. */
static bool move_exponents(sbni_gradsync *s)
{
    const uint64_t *verdict = s->message.sum + SBNI_HEAD_WORDS + s->offset[s->n];
    const uint64_t field = (UINT64_C(1) << COUNT_BITS) - 1;
    bool moved = false;
    for (int i = 0; i < s->n; i++) {
        bool high = verdict[i] >> (2 * COUNT_BITS) & field,
             good = verdict[i] >> COUNT_BITS & field, low = verdict[i] & field;
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

sbn_status sbni_gradsync_run(sbni_gradsync *s, sbn_status mine, bool *again)
{
    uint64_t *send = s->message.send;
    for (int t = 1; t < s->threads; t++)
        for (int64_t k = 0; k < thread_words(s); k++) s->words[0][k] += s->words[t][k];
    int bad = -1;
    for (int t = 0; t < s->threads; t++)
        if (s->bad[t] > bad) bad = s->bad[t];
    if (bad >= 0 && mine == SBN_OK)
        mine = sbni_fail(SBN_E_NONFINITE, "gradient of %s is NaN or infinite",
                         s->names[bad]);
    send[SBNI_HEAD_FAILED] = mine != SBN_OK;
    SBN_TRY(sbni_reduce_run(&s->message));
    SBN_TRY(sbni_reduce_verdict(&s->message, mine, "gradients"));
    *again = move_exponents(s);
    return SBN_OK;
}

/* The layer's innards, shared by its forward and backward. */
#ifndef SBNI_NORM_H
#define SBNI_NORM_H

#include "comm/exact.h"
#include "comm/reduce.h"
#include "core/tensor.h"
#include "kernels/kernels.h"
#include "norm/samples.h"
#include "syncbn/norm.h"

/* Where a layer is between calls. */
typedef enum sbni_norm_phase {
    SBNI_NORM_IDLE,
    SBNI_NORM_FORWARD, /* forward begun, not ended */
    SBNI_NORM_READY,   /* a forward is remembered for backward */
    SBNI_NORM_BACKWARD /* backward begun, not ended */
} sbni_norm_phase;

/* Payload of a norm batch in a message: n values per channel, slices and samples, then
 * words of the channels. */
enum { SBNI_SECTION_N, SBNI_SECTION_COUNTS, SBNI_SECTION_WORDS };

/* Two sums in one word: slices below, samples above, of which only 24 bits are kept. */
enum { SBNI_SAMPLES_BIT = 40 };

static inline int64_t sbni_section_slices(const uint64_t *section)
{
    return (int64_t)(section[SBNI_SECTION_COUNTS] &
                     ((UINT64_C(1) << SBNI_SAMPLES_BIT) - 1));
}

static inline int64_t sbni_section_samples(const uint64_t *section)
{
    return (int64_t)(section[SBNI_SECTION_COUNTS] >> SBNI_SAMPLES_BIT);
}
enum { SBNI_BACKWARD_WORDS = 2 * SBNI_SUM_WORDS, SBNI_SECOND_WORDS = 3 * SBNI_SUM_WORDS };

/* xhat becomes xhat·r + d; 1 and 0 leave it alone. */
typedef struct sbni_correction {
    double r, d;
} sbni_correction;

/* What the second derivative needs beyond backward; all NULL without it. */
typedef struct sbni_second {
    sbni_reduce message;
    double *sum_dy, *sum_dy_xhat; /* [batches][c] of the last backward */
    void *factors;                /* [7][batches][c] of T */
    bool ready;                   /* they belong to the remembered forward */
    bool dy_kept;                 /* dx was not written over dy */
} sbni_second;

struct sbn_norm {
    sbn_norm_config cfg;
    char *name;
    sbn_group *group;
    const sbni_norm_kernels *kernels;
    sbn_dtype state_dtype; /* T of the kernels: of the state and of all factors */
    sbn_norm_mode mode;
    sbn_norm_state state;
    int64_t batches_tracked;
    bool borrowed; /* gamma, beta and gradients belong to somebody else */
    uint32_t id,
        calls; /* which layer of the group, and its calls so far: the message's tag */

    int64_t first; /* place of this process's kept samples in the batch */
    uint8_t *mask; /* [mask_n] samples to keep; NULL: all */
    int64_t mask_n;
    int64_t batches; /* norm batches that a message has room for */
    sbni_reduce forward, backward;
    sbni_reduce precise; /* words of precise statistics; made by the first begin */
    bool precises;       /* begun */
    sbn_status precise_local;

    /* of the call under way, and of the forward that backward belongs to */
    sbni_norm_phase phase;
    sbn_norm_mode ran;              /* the mode it is in */
    bool fixed_begun;               /* a forward without message waits for its end */
    bool planes;                    /* form of the views of the call */
    bool adds;                      /* z is added */
    sbn_tensor x, z, y, dy, dx, dz; /* dx, dz without data where not wanted */
    sbn_status local; /* this process's own failure, reported in the message */
    sbni_samples samples;
    sbni_samples aside; /* of calls that leave the remembered forward alone */

    double *rstd_d, *gamma_d;     /* [batches + 1][c] as forward used them */
    sbni_correction *corrections; /* [batches + 1][c] */
    bool corrects;                /* some correction of the last forward is not 1 and 0 */
    int64_t clipped_r, clipped_d, corrected;
    double *weight_grad_d; /* [c] dgamma where corrections differ between norm batches */
    void *mean_hi, *mean_lo, *scale; /* [batches + 1][c] of T: factors of the elements;
                                        the last set is evaluation's, so that it leaves
                                        those of backward alone */
    void *shift;                     /* [batches + 1][c] of T: beta + gamma·d */
    void *dx_a, *dx_b, *dx_k;        /* [batches][c] of T */
    int64_t *counts;                 /* [batches] values per channel */
    sbni_second second;
};

/* Section of norm batch g in a message whose channels hold `words` words each. */
static inline int64_t sbni_norm_section(const sbn_norm *norm, int64_t g, int words)
{
    return SBNI_HEAD_WORDS + g * (SBNI_SECTION_WORDS + words * norm->cfg.channels);
}

/* The same of a summed forward, and the statistics of channel i in it. */
static inline const uint64_t *
sbni_norm_moment_section(const sbn_norm *norm, const sbni_reduce *message, int64_t g)
{
    return message->sum + sbni_norm_section(norm, g, SBNI_MOMENT_WORDS);
}

static inline sbni_moments sbni_norm_moments(const sbn_norm *norm,
                                             const uint64_t *section, int64_t i)
{
    return sbni_exact_moments(section + SBNI_SECTION_WORDS + i, norm->cfg.channels,
                              (int64_t)section[SBNI_SECTION_N],
                              sbni_section_slices(section));
}

/* Element i of an array of the state's type. */
static inline double sbni_norm_get(const sbn_norm *norm, const void *array, int64_t i)
{
    return norm->state_dtype == SBN_F64 ? ((const double *)array)[i]
                                        : (double)((const float *)array)[i];
}

static inline void sbni_norm_set(const sbn_norm *norm, void *array, int64_t i, double v)
{
    if (norm->state_dtype == SBN_F64)
        ((double *)array)[i] = v;
    else
        ((float *)array)[i] = (float)v;
}

/* Array of the state's type, `count` elements further. */
static inline void *sbni_norm_at(const sbn_norm *norm, const void *array, int64_t count)
{
    return (char *)array + count * sbn_dtype_bytes(norm->state_dtype);
}

/* Factors of norm batch g. */
static inline sbni_channels sbni_norm_channels(const sbn_norm *norm, int64_t g)
{
    int64_t at = g * norm->cfg.channels;
    return (sbni_channels){
        sbni_norm_at(norm, norm->mean_hi, at), sbni_norm_at(norm, norm->mean_lo, at),
        sbni_norm_at(norm, norm->scale, at), sbni_norm_at(norm, norm->shift, at)};
}

static inline sbni_view sbni_norm_view(const sbn_tensor *t)
{
    return (sbni_view){t->data, t->stride_n, t->stride_c, t->stride_s};
}

static inline sbni_block sbni_norm_block(const sbni_samples *samples, int64_t row,
                                         int64_t n, const sbn_tensor *x, bool planes)
{
    return (sbni_block){samples->rows + row, n, x->c, sbni_tensor_s(x), planes};
}

/* Let gamma, beta and their gradients live in memory of the owner, in place of the
 * layer's own. */
void sbni_norm_bind(sbn_norm *norm, void *weight, void *weight_grad, void *bias,
                    void *bias_grad);

/* A layer is there and no begin waits for its end. */
sbn_status sbni_norm_check_free(const sbn_norm *norm, const char *call);

/* Choose the form that all views have (NULL ones are skipped): planes where there are
 * pixels. */
sbn_status sbni_norm_choose_form(const sbn_tensor *const *views, int count, bool *planes);

/* Samples of a call under the layer's mask; sums: with room for their sums. */
sbn_status sbni_norm_take(const sbn_norm *norm, const sbn_tensor *x, int64_t first,
                          int64_t norm_batch, bool sums, sbni_samples *samples);

/* Write the factors of norm batch g, channel i, from its statistics and correction. */
void sbni_norm_set_factors(sbn_norm *norm, int64_t g, int64_t i, sbni_moments m,
                           sbni_correction correction);

/* z NULL: nothing is added. y of all samples, each with the factors of its norm batch, or
 * all with those of set. */
enum { SBNI_OWN_SET = -1 };
void sbni_norm_apply(const sbn_norm *norm, const sbni_samples *samples,
                     const sbn_tensor *x, const sbn_tensor *z, sbn_tensor *y, bool planes,
                     int64_t set);

/* Zero the samples that the mask left out. */
void sbni_norm_clear(const sbn_norm *norm, const sbni_samples *samples, sbn_tensor *t,
                     bool planes);

/* Add the sums of all slices to the words of a message, and note in its header what is
 * not finite or too large. MATH.md (1) to (3). */
void sbni_norm_add_moments(const sbn_norm *norm, sbni_samples *samples,
                           const sbn_tensor *x, bool planes, sbni_reduce *message);

/* The second half of that: sums that lie in samples already, of c·s values a sample. */
void sbni_norm_add_moment_words(const sbn_norm *norm, const sbni_samples *samples,
                                int64_t s, sbni_reduce *message);

/* Forward without its loops: before the sums are formed, and after the message, from its
 * verdict to factors and running statistics. */
void sbni_norm_open_forward(sbn_norm *norm);
sbn_status sbni_norm_read_forward(sbn_norm *norm);

/* The same of backward: sums that lie in samples into the message; then its verdict,
 * factors of dx, gradients of gamma and beta. */
void sbni_norm_add_sum_words(sbn_norm *norm);
sbn_status sbni_norm_read_backward(sbn_norm *norm);

/* Factors of a set from running statistics. */
void sbni_norm_fix_factors(sbn_norm *norm, int64_t set);

/* Forward with running statistics as constants: evaluation and frozen. */
sbn_status sbni_norm_fixed_forward(sbn_norm *norm, const sbn_tensor *x,
                                   const sbn_tensor *z, sbn_tensor *y);

/* Whether the mode does without a message. */
bool sbni_norm_is_fixed(const sbn_norm *norm);

/* In place of a z that should be there: a plain forward has none, and a forgotten one is
 * an error that the others hear of. */
extern const sbn_tensor sbni_norm_missing;

/* Whether the backward of a forward in this mode reads x. */
bool sbni_norm_reads_x(const sbn_norm *norm, sbn_norm_mode mode);

/* Shapes, types, layouts and shared memory of each call, as far as one process can tell;
 * planes receives the form. */
sbn_status sbni_norm_check_forward(const sbn_norm *norm, const sbn_tensor *x,
                                   const sbn_tensor *z, const sbn_tensor *y,
                                   bool *planes);

sbn_status sbni_norm_check_backward(const sbn_norm *norm, const sbn_tensor *dy,
                                    const sbn_tensor *dx, const sbn_tensor *dz,
                                    bool *planes);
sbn_status sbni_norm_check_second(const sbn_norm *norm, const sbn_tensor *v,
                                  const sbn_tensor *ddy, const sbn_tensor *gx,
                                  bool *planes);

/* Add the sections of all norm batches of a summed message, into the first, and return
 * it. The others' are still there. */
uint64_t *sbni_norm_fold(const sbn_norm *norm, sbni_reduce *message, int words);

/* Update running statistics from the summed message of a forward, which is used up. */
void sbni_norm_track(sbn_norm *norm);

/* The correction of a channel with these statistics, from the running averages as they
 * are now; counts what is clipped. 1 and 0 for layers without one. */
sbni_correction sbni_norm_correct(sbn_norm *norm, int64_t i, sbni_moments m);

/* Tag of the next message: equal on all processes that are in the same call of the same
 * layer. */
enum {
    SBNI_TAG_TRAIN = 1,
    SBNI_TAG_EVAL,
    SBNI_TAG_BACKWARD,
    SBNI_TAG_SECOND,
    SBNI_TAG_PRECISE
};
uint32_t sbni_norm_tag(const sbn_norm *norm, uint32_t what);

/* One number that differs when what a correction uses does; 0 for layers without one. */
uint32_t sbni_norm_correction_digest(const sbn_norm *norm);

#endif

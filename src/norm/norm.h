/* The layer's innards, shared by its forward and backward. */
#ifndef SBNI_NORM_H
#define SBNI_NORM_H

#include "comm/exact.h"
#include "comm/reduce.h"
#include "core/tensor.h"
#include "kernels/kernels.h"
#include "norm/read.h"
#include "norm/samples.h"
#include "syncbn/norm.h"

/* Tensors of at least so many bytes are written past the cache, which would not keep them
 * beside the input for the next reader; but not planes so short that the lines they share
 * with their neighbours count. Tensors of at most so many are taken to lie in the cache
 * of a core. */
enum {
    SBNI_PAST_BYTES = 12 << 20,
    SBNI_PAST_PLANE_BYTES = 512,
    SBNI_NEAR_BYTES = 512 << 10
};

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

/* Words of a section of c channels that hold `words` words each. */
static inline int64_t sbni_section_length(int64_t c, int words)
{
    return SBNI_SECTION_WORDS + words * c;
}

/* Where that of norm batch g begins in a message. */
static inline int64_t sbni_section(int64_t c, int64_t g, int words)
{
    return SBNI_HEAD_WORDS + g * sbni_section_length(c, words);
}

/* Channels [first, first + c) of a layer. */
typedef struct sbni_range {
    int64_t first, c;
} sbni_range;

/* xhat becomes xhat·r + d; 1 and 0 leave it alone. */
typedef struct sbni_correction {
    double r, d;
} sbni_correction;

/* How many corrections a forward made, and how many met a limit. */
typedef struct sbni_clips {
    int64_t corrected, r, d;
} sbni_clips;

/* What the second derivative needs beyond backward; all NULL without it. */
typedef struct sbni_second {
    sbni_reduce message;
    void *factors; /* [7][batches][c] of T */
    bool ready;    /* the sums of backward belong to the remembered forward */
    bool dy_kept;  /* dx was not written over dy */
} sbni_second;

struct sbn_norm {
    sbn_norm_config cfg;
    char *name;
    sbn_group *group;
    const sbni_norm_kernels *kernels;
    const sbni_words_kernels *words;
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

    double *mean_d,
        *var_d; /* [batches][c] of the last forward with statistics of its own */
    double *sum_dy, *sum_dy_xhat; /* [batches][c] of the last backward */
    double *rstd_d, *gamma_d;     /* [batches + 1][c] as forward used them */
    double *r, *d; /* [batches + 1][c] corrections of renormalization; NULL without it */
    bool corrects; /* some correction of the last forward is not 1 and 0 */
    sbni_clips clips;
    double *weight_grad_d; /* [c] dgamma by corrections; NULL without them */
    uint64_t *folded;      /* a section, the sum of all; of one norm batch none */
    void *mean_hi, *mean_lo, *centre_hi, *centre_lo, *scale,
        *shift; /* [batches + 1][c] of T: sbni_channels; the last set is evaluation's, so
                   that it leaves those of backward alone */
    void *dx_a, *dx_b, *dx_k; /* [batches][c] of T */
    int64_t *counts;          /* [batches] values per channel */
    sbni_second second;
};

/* Statistics of channels [from, from + count) of a summed section, whose channels are c.
 */
static inline void sbni_norm_read_moments(const sbn_norm *norm, const uint64_t *section,
                                          int64_t c, int64_t from, int64_t count,
                                          double *mean, double *mean_low, double *var)
{
    sbni_read_moments(norm->words, count, c, section + SBNI_SECTION_WORDS + from,
                      (int64_t)section[SBNI_SECTION_N], sbni_section_slices(section),
                      mean, mean_low, var);
}

/* Element i of an array of double or float. */
static inline double sbni_element_get(const void *array, int64_t i, const bool f64)
{
    return f64 ? ((const double *)array)[i] : (double)((const float *)array)[i];
}

static inline void sbni_element_set(void *array, int64_t i, double v, const bool f64)
{
    if (f64)
        ((double *)array)[i] = v;
    else
        ((float *)array)[i] = (float)v;
}

/* The same of an array of the state's type. Loops over all channels rather have one form
 * for each type. */
static inline double sbni_norm_get(const sbn_norm *norm, const void *array, int64_t i)
{
    return sbni_element_get(array, i, norm->state_dtype == SBN_F64);
}

static inline void sbni_norm_set(const sbn_norm *norm, void *array, int64_t i, double v)
{
    sbni_element_set(array, i, v, norm->state_dtype == SBN_F64);
}

/* Elements [from, from + count) of an array of the state's type. */
void sbni_norm_put(const sbn_norm *norm, void *array, int64_t from, int64_t count,
                   const double *v);

/* Array of the state's type, `count` elements further. */
static inline void *sbni_norm_at(const sbn_norm *norm, void *array, int64_t count)
{
    return (char *)array + count * sbn_dtype_bytes(norm->state_dtype);
}

/* Factors of norm batch g, from channel `first` on. */
static inline sbni_channels sbni_norm_channels(const sbn_norm *norm, int64_t g,
                                               int64_t first)
{
    int64_t at = g * norm->cfg.channels + first;
    return (sbni_channels){sbni_norm_at(norm, norm->mean_hi, at),
                           sbni_norm_at(norm, norm->mean_lo, at),
                           sbni_norm_at(norm, norm->centre_hi, at),
                           sbni_norm_at(norm, norm->centre_lo, at),
                           sbni_norm_at(norm, norm->scale, at),
                           sbni_norm_at(norm, norm->shift, at),
                           norm->gamma_d + at,
                           norm->rstd_d + at};
}

/* The same of dx. */
static inline sbni_dx_factors sbni_norm_dx_factors(const sbn_norm *norm, int64_t g,
                                                   int64_t first)
{
    int64_t at = g * norm->cfg.channels + first;
    return (sbni_dx_factors){sbni_norm_at(norm, norm->dx_a, at),
                             sbni_norm_at(norm, norm->dx_b, at),
                             sbni_norm_at(norm, norm->dx_k, at)};
}

/* From channel `first` on. */
static inline sbni_view sbni_norm_view(const sbn_tensor *t, int64_t first)
{
    char *data = t->data;
    if (data) data += first * t->stride_c * sbn_dtype_bytes(t->dtype);
    return (sbni_view){data, t->stride_n, t->stride_c, t->stride_s};
}

/* c of x's channels in n samples from row on. */
static inline sbni_block sbni_norm_block(const sbni_samples *samples, int64_t row,
                                         int64_t n, const sbn_tensor *x, int64_t c,
                                         bool planes)
{
    int64_t s = sbni_tensor_s(x), plane = s * sbn_dtype_bytes(x->dtype);
    bool past = samples->kept * x->c * plane >= SBNI_PAST_BYTES &&
                (!planes || plane >= SBNI_PAST_PLANE_BYTES);
    bool near = samples->kept * x->c * plane <= SBNI_NEAR_BYTES;
    return (sbni_block){samples->rows + row, n, c, s, planes, past, near};
}

/* Some slices of one norm batch. */
typedef struct sbni_slice_run {
    int64_t first, count;
} sbni_slice_run;

static inline sbni_block sbni_norm_run_block(const sbni_samples *samples,
                                             sbni_slice_run run, const sbn_tensor *x,
                                             int64_t c, bool planes)
{
    const sbni_slice *first = &samples->slices[run.first], *last = first + run.count - 1;
    return sbni_norm_block(samples, first->row, last->row + last->n - first->row, x, c,
                           planes);
}

static inline sbni_block sbni_norm_slice_block(const sbni_samples *samples, int64_t k,
                                               const sbn_tensor *x, int64_t c,
                                               bool planes)
{
    return sbni_norm_run_block(samples, (sbni_slice_run){k, 1}, x, c, planes);
}

/* How many tiles of *width channels a thread sums and writes in one go each, so that it
 * finds them in the cache the second time; 0: all is summed before any is written.
 * `bytes` of memory are read for each value. norm/tiles.c */
int64_t sbni_norm_tiles(const sbni_samples *samples, const sbn_tensor *x, int64_t bytes,
                        bool planes, int64_t *width);

/* Up to so many bytes read there are no tiles; tests have them from 0 on. */
extern int64_t sbni_norm_cached_bytes;

/* Part number i of the channels of `of`, parts of c each. */
static inline sbni_range sbni_range_part(sbni_range of, int64_t c, int64_t i)
{
    int64_t left = of.c - i * c;
    return (sbni_range){of.first + i * c, left < c ? left : c};
}

/* Do work on all slices of x, by all threads, which share them out as schedule(static)
 * does: each goes back through those that it has summed, if they were, of which the last
 * are the freshest in its cache; but where slices are small forward through some. */
void sbni_norm_each_run(const sbni_samples *samples, const sbn_tensor *x,
                        void (*work)(const void *of, sbni_slice_run run), const void *of);

/* A message with room for all norm batches, `words` words a channel. */
sbn_status sbni_norm_create_message(sbn_norm *norm, int words, const char *phase,
                                    sbni_reduce *reduce);

/* Let gamma, beta and their gradients live in memory of the owner, in place of the
 * layer's own. */
void sbni_norm_bind(sbn_norm *norm, void *weight, void *weight_grad, void *bias,
                    void *bias_grad);

/* A layer is there and no begin waits for its end. */
sbn_status sbni_norm_check_free(const sbn_norm *norm, const char *call);

/* Choose the form that all views have (NULL ones are skipped): planes where there are
 * pixels. */
sbn_status sbni_norm_choose_form(const sbn_tensor *const *views, int count, bool *planes);

/* Samples of a call under the layer's mask, with room for their sums by up to so many
 * threads; 0: without. */
sbn_status sbni_norm_take(const sbn_norm *norm, const sbn_tensor *x, int64_t first,
                          int64_t norm_batch, int threads, sbni_samples *samples);

/* Write the factors of norm batch g, of `count` channels from `first` on, from their
 * statistics and corrections, which are there already. */
void sbni_norm_set_factors(sbn_norm *norm, int64_t g, int64_t first, int64_t count,
                           const sbni_statistics *statistics);

/* What is done to the elements of a call: y of x, and of z unless that is NULL. */
typedef struct sbni_elements {
    const sbn_tensor *x, *z, *y;
    bool planes;
    int64_t set; /* the factors of all samples, or SBNI_OWN_SET: of its norm batch */
} sbni_elements;
enum { SBNI_OWN_SET = -1 };

/* Some channels of some slices; and all, by all threads. */
void sbni_norm_apply_run(const sbn_norm *norm, const sbni_samples *samples,
                         const sbni_elements *e, sbni_range tile, sbni_slice_run run);
void sbni_norm_apply_all(const sbn_norm *norm, const sbni_samples *samples,
                         const sbni_elements *e);

/* Zero the samples that the mask left out. */
void sbni_norm_clear(const sbn_norm *norm, const sbni_samples *samples, sbn_tensor *t,
                     bool planes);

/* Put the counts of a call's slices into a message of c channels, and where the kernels
 * find them. */
void sbni_norm_count(sbni_samples *samples, int64_t s, int64_t c, sbni_reduce *message);

/* Sum slice k of a tile. */
void sbni_norm_sum_slice(const sbn_norm *norm, const sbni_samples *samples,
                         const sbn_tensor *x, bool planes, sbni_range tile, int64_t k);

/* Where sums of slices go: to the words of a message, but those of norm batch `apart` to
 * words of a thread's own, [words of a channel][c]. */
typedef struct sbni_sink {
    uint64_t *send;
    int64_t apart; /* or SBNI_NONE_APART */
    uint64_t *words;
} sbni_sink;
enum { SBNI_NONE_APART = -1 };

static inline uint64_t *sbni_sink_words(const sbni_sink *to, int64_t c, int64_t g,
                                        int words)
{
    return g == to->apart ? to->words
                          : to->send + sbni_section(c, g, words) + SBNI_SECTION_WORDS;
}

/* Add a tile's sums of slices from … end-1 to words; SBNI_GRID_ flags. MATH.md (1) to
 * (3). */
int sbni_norm_add_tile(const sbn_norm *norm, const sbni_samples *samples, sbni_range tile,
                       int64_t from, int64_t end, const sbni_sink *to);

/* How all slices of a call are summed: slice k, and the sums of slices from … end-1 added
 * to words, so many a channel. */
typedef struct sbni_summing {
    void (*sum)(const void *of, int64_t k);
    int (*add)(const void *of, int64_t from, int64_t end, const sbni_sink *to);
    const void *of;
    int words;
} sbni_summing;

/* Do so with c channels, by all threads, into a message; SBNI_GRID_ flags. */
int sbni_norm_sum_all(const sbni_samples *samples, int64_t c, const sbni_summing *how,
                      uint64_t *send);

/* Both, and the counts, for all channels of a message, by all threads. */
void sbni_norm_add_moments(const sbn_norm *norm, sbni_samples *samples,
                           const sbn_tensor *x, bool planes, sbni_reduce *message);

/* Forward without its loops: before the first sum; and after the message, from its
 * verdict to factors and running statistics. */
void sbni_norm_open_forward(sbn_norm *norm);
sbn_status sbni_norm_read_forward(sbn_norm *norm);

/* The same of backward: gradients of gamma and beta, and factors of dx. */
void sbni_norm_open_backward(sbn_norm *norm);
sbn_status sbni_norm_read_backward(sbn_norm *norm);

/* The same of backward, whose sums lie in the layer's samples; (x-mean) becomes xhat. */
int sbni_norm_add_sums_tile(const sbn_norm *norm, sbni_range tile, int64_t from,
                            int64_t end, const sbni_sink *to);

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

/* Words of norm->folded. */
int64_t sbni_norm_folded_words(const sbn_norm *norm);

/* The sum of the sections of all norm batches of a summed message, until the next. */
const uint64_t *sbni_norm_fold(const sbn_norm *norm, const sbni_reduce *message,
                               int words);

/* Update running statistics from the last forward. */
void sbni_norm_track(sbn_norm *norm);

/* The corrections of norm batch g, of `count` channels from `first` on with these
 * statistics, from the running averages as they are now; counts what is clipped, also
 * when threads share out the channels. Nothing to do for layers without them. */
void sbni_norm_correct(sbn_norm *norm, int64_t g, int64_t first, int64_t count,
                       const sbni_statistics *statistics);

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

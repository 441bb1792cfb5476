/*
 * The exact sum of all gradients over slices and processes, in one message, or in one for
 * each segment of tensors, so that the sum of what backward has finished travels while it
 * goes on.
 *
 * A gradient is one int64 word in units of 2^exponent, one exponent per tensor. A slice's
 * gradient is rounded to units and added as integers. After the sum all processes know
 * whether the units fitted: when a slice's largest gradient needs more than 47 bits, or
 * none fills 27, the exponent moves and the owner computes the gradients again. That is
 * rare (the first step, and when gradients grow or shrink by 2^20), and because exponents
 * follow from sums alone they are the same at any number of processes.
 */
#ifndef SBNI_GRADSYNC_H
#define SBNI_GRADSYNC_H

#include <stdbool.h>
#include <stdint.h>

#include "comm/reduce.h"

/* Most slices of all processes in one sum: each brings up to 2^47 units to a word. */
enum { SBNI_GRADSYNC_SLICES = (1 << 16) - 1 };

typedef struct sbni_gradsync sbni_gradsync;

typedef struct sbni_gradsync_tensor {
    const char *name; /* for errors, borrowed */
    int64_t count;
    int segment; /* 0 … segments-1, in ascending order: the last is nearest to the loss */
} sbni_gradsync_tensor;

/* extra: words of the owner's own that travel in the message of the last segment, which
 * is there even without tensors. Local. */
sbn_status sbni_gradsync_create(sbn_group *group, const sbni_gradsync_tensor *tensors,
                                int n, int segments, int threads, int64_t extra,
                                sbni_gradsync **sync);
/* Before the first sum. @collective over the group */
sbn_status sbni_gradsync_connect(sbni_gradsync *sync);
void sbni_gradsync_destroy(sbni_gradsync **sync);

/* Forget all sums; before the first slice of a step and before each repetition. */
void sbni_gradsync_clear(sbni_gradsync *sync);

/* What a kernel needs to add one slice's gradient of a tensor: the thread's words,
 * whether it is the first, so that they hold anything and are to be set, and 1/unit; */
uint64_t *sbni_gradsync_words(sbni_gradsync *sync, int thread, int tensor, bool *first);
double sbni_gradsync_scale(const sbni_gradsync *sync, int tensor);
/* and then the slice's largest |gradient|, NaN where one is. */
void sbni_gradsync_note(sbni_gradsync *sync, int thread, int tensor, double largest);

/* The owner's words of this process, to be added to before they are sent; and their sums.
 */
uint64_t *sbni_gradsync_extra(sbni_gradsync *sync);
const uint64_t *sbni_gradsync_extra_sum(const sbni_gradsync *sync);

/*
 * Sum over threads and processes. *again: an exponent moved on all processes, compute
 * once more. mine: this process's own failure, which becomes everybody's.
 * @collective for each segment one sum of 8·(4 + elements + tensors) bytes, and
 * 8·extra in the last.
 * @errors SBN_E_NONFINITE naming the tensor nearest to the loss; SBN_E_MISMATCH,
 * SBN_E_PEER
 */
sbn_status sbni_gradsync_run(sbni_gradsync *sync, sbn_status mine, bool *again);

/*
 * The same in parts: begin sends a segment whose gradients are complete, the last segment
 * first, in the same order on all processes; mine counts in the last. After the first
 * segment end waits for all and says what run does. wait only waits, for an owner that
 * gives up between them.
 */
sbn_status sbni_gradsync_begin(sbni_gradsync *sync, int segment, sbn_status mine);
sbn_status sbni_gradsync_end(sbni_gradsync *sync, bool *again);
sbn_status sbni_gradsync_wait(sbni_gradsync *sync);

/* The sum of a tensor in units; valid until clear. */
const uint64_t *sbni_gradsync_sum(const sbni_gradsync *sync, int tensor);
double sbni_gradsync_unit(const sbni_gradsync *sync, int tensor);

/* Bytes of all messages and sums. */
int64_t sbni_gradsync_bytes(const sbni_gradsync *sync);

/* Exponents [n], part of the state that resuming needs. */
int64_t *sbni_gradsync_exponents(sbni_gradsync *sync);

#endif

/*
 * The exact sum of all gradients over slices and processes, in one message.
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
} sbni_gradsync_tensor;

/* extra: words of the owner's own that travel in the same message. Local. */
sbn_status sbni_gradsync_create(sbn_group *group, const sbni_gradsync_tensor *tensors,
                                int n, int threads, int64_t extra, sbni_gradsync **sync);
/* Before the first sum. @collective over the group */
sbn_status sbni_gradsync_connect(sbni_gradsync *sync);
void sbni_gradsync_destroy(sbni_gradsync **sync);

/* Forget all sums; before the first slice of a step and before each repetition. */
void sbni_gradsync_clear(sbni_gradsync *sync);

/* What a kernel needs to add one slice's gradient of a tensor: the thread's words and
 * 1/unit; */
uint64_t *sbni_gradsync_words(sbni_gradsync *sync, int thread, int tensor);
double sbni_gradsync_scale(const sbni_gradsync *sync, int tensor);
/* and then the slice's largest |gradient|, NaN where one is. */
void sbni_gradsync_note(sbni_gradsync *sync, int thread, int tensor, double largest);

/* The owner's words of this process, to be added to before run; and their sums after it.
 */
uint64_t *sbni_gradsync_extra(sbni_gradsync *sync);
const uint64_t *sbni_gradsync_extra_sum(const sbni_gradsync *sync);

/*
 * Sum over threads and processes. *again: an exponent moved on all processes, compute
 * once more. mine: this process's own failure, which becomes everybody's.
 * @collective one MPI_Allreduce of 8·(4 + elements + tensors + extra) bytes.
 * @errors SBN_E_NONFINITE naming the tensor; SBN_E_MISMATCH, SBN_E_PEER
 */
sbn_status sbni_gradsync_run(sbni_gradsync *sync, sbn_status mine, bool *again);

/* The sum of a tensor in units; valid until clear. */
const uint64_t *sbni_gradsync_sum(const sbni_gradsync *sync, int tensor);
double sbni_gradsync_unit(const sbni_gradsync *sync, int tensor);

/* Exponents [n], part of the state that resuming needs. */
int64_t *sbni_gradsync_exponents(sbni_gradsync *sync);

#endif

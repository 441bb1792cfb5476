/*
 * The scale of the noise of gradients, from gradients of batches of two sizes.
 *
 * A gradient of a batch of n samples has E|G_n|² = |G|² + tr(Σ)/n, with Σ the covariance
 * of one sample's gradient. From m batches of b samples, and the batch of B = m·b that
 * they make up, whose gradient is the mean of theirs:
 *
 *   |G|²  ≈ (B·|G_B|² − b·|G_b|²)/(B − b),   tr(Σ) ≈ (|G_b|² − |G_B|²)/(1/b − 1/B)
 *
 * with |G_b|² the mean over the m batches. Both estimates are unbiased where the m
 * gradients are independent. Under batch norm those of samples are not: statistics tie
 * together all samples of a norm batch, wherever they are computed, so neither samples
 * nor the shares of processes can be the small batches. Norm batches share nothing; they
 * are the small batches here, and what is measured is the noise for norm batches of that
 * size. The quotient tr(Σ)/|G|² of one step is neither unbiased nor, when the estimate of
 * |G|² is near 0 or below, of any meaning: average both over steps, then divide.
 * @source McCandlish et al. 2018 (arXiv 1812.06162), equations 2.8, 2.9 and A.1 to A.4
 */
#ifndef SBNI_GRADNOISE_H
#define SBNI_GRADNOISE_H

#include "syncbn/model.h"

typedef struct sbni_gradnoise {
    double *sum; /* [count] of the gradients so far */
    int64_t count;
    double squares; /* sum of theirs */
    int64_t batches;
} sbni_gradnoise;

typedef struct sbni_noise_scale {
    int64_t small, big;              /* b, B */
    double grad_sq, trace, quotient; /* estimates; trace ≥ 0, grad_sq may be below 0 */
} sbni_noise_scale;

/* Room for a model's gradients; nothing is added yet. SBN_E_MEMORY. Local. */
sbn_status sbni_gradnoise_create(const sbn_model *model, sbni_gradnoise *noise);
void sbni_gradnoise_free(sbni_gradnoise *noise);

void sbni_gradnoise_clear(sbni_gradnoise *noise);
/* The gradients that the model holds, of one small batch. In order of the tensors, so the
 * same on all processes. */
void sbni_gradnoise_add(const sbn_model *model, sbni_gradnoise *noise);
/* After two batches or more, of b samples each. */
sbni_noise_scale sbni_gradnoise_read(const sbni_gradnoise *noise, int64_t b);

#endif

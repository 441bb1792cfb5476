/* The second derivative by differences of the first, in long double. */
#ifndef SUPPORT_SLOPES_H
#define SUPPORT_SLOPES_H

#include <stdint.h>

/* One channel of one norm batch: all that L = Σ v·dx + v_gamma·dgamma + v_beta·dbeta
 * depends on. */
typedef struct probe {
    int64_t n; /* values */
    long double *x, *dy, *v;
    int64_t *at; /* their places in the joined batch */
    long double gamma, v_gamma, v_beta, r, d, eps;
} probe;

typedef struct slopes {
    int64_t all, c;
    long double *ddy, *gx, *ggamma;
    long double *ddy_size, *gx_size, *ggamma_size; /* magnitude of the terms */
} slopes;

long double *zeros(int64_t count);

slopes slopes_make(int64_t all, int64_t c);
void slopes_free(slopes *w);

/* Mean and biased variance, in two passes. */
void statistics(const probe *p, long double *mean, long double *var);

/* Derivative of L by one of the numbers that p holds, right within this. */
#define SLOPE_ERROR 1e-12
long double slope(const probe *p, long double *by);

/* Add the magnitudes of channel i's terms to want. */
void sizes(const probe *p, slopes *want, int64_t i);

#endif

/* Statistics over seeds. */
#ifndef SBNI_STATISTICS_H
#define SBNI_STATISTICS_H

/* What is known of a mean from n independent values. */
typedef struct sbni_sample {
    int n;
    double mean;      /* NaN where n = 0 */
    double sd;        /* with n − 1; NaN where n < 2 */
    double low, high; /* 95 % interval of the mean by Student's t; NaN where n < 2 */
} sbni_sample;

/* Quantile of Student's t: the value below which a fraction p of it lies. 0 < p < 1, dof
 * ≥ 1. */
double sbni_student_quantile(double p, double dof);

/* Of n values; those that are NaN are left out. */
sbni_sample sbni_sample_of(const double *values, int n);

/* Of the differences a − b; pairs with a NaN are left out. */
sbni_sample sbni_sample_paired(const double *a, const double *b, int n);

/* 1: the interval lies above 0, −1: below, 0: it holds 0 or there is none. */
int sbni_sample_sign(const sbni_sample *s);

#endif

#include "study/statistics.h"

#include <math.h>
#include <stddef.h>

/* Continued fraction of the incomplete beta function, by Lentz's method (Numerical
 * Recipes, section 6.4). */
static double beta_fraction(double a, double b, double x)
{
    const double least = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < least ? least : d);
    double value = d;
    for (int m = 1; m <= 500; m++) {
        for (int odd = 0; odd < 2; odd++) {
            double term =
                odd ? -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
                    : m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
            d = 1 + term * d;
            c = 1 + term / c;
            d = 1 / (fabs(d) < least ? least : d);
            c = fabs(c) < least ? least : c;
            value *= c * d;
        }
        if (fabs(c * d - 1) < 1e-16) break;
    }
    return value;
}

/* Regularized incomplete beta function. */
static double beta_part(double a, double b, double x)
{
    if (x <= 0 || x >= 1) return x > 0;
    double front =
        exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
    return x < (a + 1) / (a + b + 2) ? front * beta_fraction(a, b, x) / a
                                     : 1 - front * beta_fraction(b, a, 1 - x) / b;
}

/* P(T > t), t ≥ 0 */
static double student_tail(double t, double dof)
{
    return 0.5 * beta_part(0.5 * dof, 0.5, dof / (dof + t * t));
}

double sbni_student_quantile(double p, double dof)
{
    double tail = p < 0.5 ? p : 1 - p, low = 0, high = 1;
    while (student_tail(high, dof) > tail && high < 1e300) high *= 2;
    for (int i = 0; i < 200 && high - low > 1e-15 * high; i++) {
        double middle = 0.5 * (low + high);
        if (student_tail(middle, dof) > tail)
            low = middle;
        else
            high = middle;
    }
    return p < 0.5 ? -high : high;
}

/* Of a[i], or of a[i] − b[i]. */
static sbni_sample sample(const double *a, const double *b, int n)
{
    sbni_sample s = {0, NAN, NAN, NAN, NAN};
    double sum = 0, squares = 0;
    for (int i = 0; i < n; i++) {
        double v = b ? a[i] - b[i] : a[i];
        if (isnan(v)) continue;
        s.n++;
        sum += v;
    }
    if (!s.n) return s;
    s.mean = sum / s.n;
    if (s.n < 2) return s;
    for (int i = 0; i < n; i++) {
        double v = (b ? a[i] - b[i] : a[i]) - s.mean;
        if (!isnan(v)) squares += v * v;
    }
    s.sd = sqrt(squares / (s.n - 1));
    double half = sbni_student_quantile(0.975, s.n - 1) * s.sd / sqrt(s.n);
    s.low = s.mean - half;
    s.high = s.mean + half;
    return s;
}

sbni_sample sbni_sample_of(const double *values, int n)
{
    return sample(values, NULL, n);
}

sbni_sample sbni_sample_paired(const double *a, const double *b, int n)
{
    return sample(a, b, n);
}

int sbni_sample_sign(const sbni_sample *s)
{
    if (s->low > 0) return 1;
    return s->high < 0 ? -1 : 0;
}

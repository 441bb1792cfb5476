#include "study/finding.h"

#include <math.h>

void sbni_put_percent(FILE *text, const sbni_sample *s)
{
    if (s->n > 1)
        fprintf(text, "%.1f %% (%.1f to %.1f)", 100 * s->mean, 100 * s->low,
                100 * s->high);
    else
        fprintf(text, "%.1f %%", 100 * s->mean);
}

void sbni_put_difference(FILE *text, const sbni_sample *d, const char *what)
{
    int sign = sbni_sample_sign(d);
    if (!d->n)
        fprintf(text, "not to be compared with %s", what);
    else if (d->n < 2)
        fprintf(text, "%.1f points %s than %s in one run", fabs(100 * d->mean),
                d->mean < 0 ? "lower" : "higher", what);
    else if (!sign)
        fprintf(text, "the same as %s within the noise (difference %.1f to %.1f points)",
                what, 100 * d->low, 100 * d->high);
    else
        fprintf(text, "%.1f points %s than %s (%.1f to %.1f)", fabs(100 * d->mean),
                sign < 0 ? "lower" : "higher", what,
                sign < 0 ? -100 * d->high : 100 * d->low,
                sign < 0 ? -100 * d->low : 100 * d->high);
}

void sbni_put_number(FILE *text, double value)
{
    fprintf(text, fabs(value) < 100 ? "%.3g" : "%.0f", value);
}

int sbni_best_point(const sbni_summary *s, int arm, const char *metric)
{
    int best = -1;
    double least = INFINITY;
    for (int i = 0; i < s->design->n_points; i++) {
        sbni_sample v = sbni_summary_of(s, i, metric);
        if (s->design->points[i].arm != arm || !s->chosen[i] || !(v.mean < least))
            continue;
        best = i;
        least = v.mean;
    }
    return best;
}

bool sbni_good_range(const sbni_summary *s, int arm, const char *metric, double margin,
                     double range[2])
{
    double least = INFINITY, x[SBNI_SUMMARY_VALUES];
    for (int i = 0; i < s->design->n_points; i++)
        least = fmin(least, sbni_summary_of(s, i, metric).mean);
    int n = sbni_summary_values(s, x, SBNI_SUMMARY_VALUES), at = -1;
    int best = sbni_best_point(s, arm, metric);
    for (int i = 0; best >= 0 && i < n; i++)
        if (x[i] == s->design->points[best].x) at = i;
    if (at < 0 || !(sbni_summary_of(s, best, metric).mean <= least + margin))
        return false;
    for (int side = 0; side < 2; side++)
        for (int i = at; i >= 0 && i < n; i += side ? 1 : -1) {
            sbni_sample v = sbni_summary_of(s, sbni_summary_point(s, arm, x[i]), metric);
            if (!(v.mean <= least + margin)) break;
            range[side] = x[i];
        }
    return true;
}

void sbni_put_verdict(FILE *text, int holds, const char *source, const char *claim)
{
    if (holds > 0)
        fprintf(text, "This agrees with %s: %s.\n", source, claim);
    else if (holds < 0)
        fprintf(text, "This does not agree with %s, where %s.\n", source, claim);
    else
        fprintf(text,
                "Whether this agrees with %s, where %s, is not decided by these runs: "
                "an interval holds 0, or one run has none.\n",
                source, claim);
}

int sbni_all_hold(const int *holds, int n)
{
    int all = 1;
    for (int i = 0; i < n; i++) {
        if (holds[i] < 0) return -1;
        if (!holds[i]) all = 0;
    }
    return all;
}

#include <math.h>

#include "syncbn/optim.h"

double sbn_schedule_lr(const sbn_schedule *s, int64_t step)
{
    int64_t t = step - 1;
    if (t < s->warmup) return s->lr * (double)step / (double)s->warmup;
    t -= s->warmup;
    switch (s->kind) {
    case SBN_SCHEDULE_CONSTANT:
        break;
    case SBN_SCHEDULE_STEP:
        return s->lr * pow(s->factor, (double)(t / s->every));
    case SBN_SCHEDULE_COSINE: {
        int64_t total = s->steps - s->warmup;
        if (t >= total) return 0;
        return s->lr * (0.5 + 0.5 * cos(3.141592653589793 * (double)t / (double)total));
    }
    }
    return s->lr;
}

sbn_renorm_schedule sbn_renorm_schedule_default(void)
{
    return (sbn_renorm_schedule){3, 5, 5000, 40000, 25000};
}

/* From 0 at the warm-up to 1 at the last step; exactly 0 and 1 outside. */
static double opened(int64_t step, int64_t warmup, int64_t last)
{
    if (step <= warmup) return 0;
    if (step >= last) return 1;
    return (double)(step - warmup) / (double)(last - warmup);
}

void sbn_schedule_limits(const sbn_renorm_schedule *s, int64_t step, double *r_max,
                         double *d_max)
{
    *r_max = 1 + (s->r_max - 1) * opened(step, s->warmup, s->r_steps);
    *d_max = s->d_max * opened(step, s->warmup, s->d_steps);
}

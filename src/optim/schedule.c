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

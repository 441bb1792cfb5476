#include "train/skip.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "train/session.h"

sbn_status sbni_skip_prepare(sbni_session *s)
{
    return s->cfg->max_skips ? sbni_snapshot_take(s->model, &s->skip.before) : SBN_OK;
}

static bool is_not_finite(sbn_status status)
{
    if (status == SBN_E_PEER) status = sbn_peer_status();
    return status == SBN_E_NONFINITE || status == SBN_E_RANGE;
}

/* Weights and optimizer are only touched behind a step; the rest is put back. A line of
 * its own says that the step is none, whatever is logged else. */
static void undo(sbni_session *s)
{
    sbni_snapshot_restore(&s->skip.before, s->model);
    s->skip.all++;
    s->votes = 0;
    s->loss = NAN;
    s->lr = sbn_schedule_lr(&s->schedule, s->step);
    if (s->metrics && s->written == SBN_OK)
        s->written = sbni_metrics_step(
            s->metrics, s->step, (s->step - 1) / s->per_epoch + 1, s->loss, s->lr, NULL);
    if (s->cfg->warn && sbn_group_rank(s->group) == 0) {
        char line[SBNI_ERROR_BYTES + 32];
        snprintf(line, sizeof line, "%s; skipped", sbn_last_error());
        s->cfg->warn(line);
    }
}

sbn_status sbni_skip_judge(sbni_session *s, sbn_status status, bool *skipped)
{
    *skipped = false;
    if (status == SBN_OK) {
        s->skip.in_a_row = 0;
        return SBN_OK;
    }
    bool mine = status != SBN_E_PEER && is_not_finite(status);
    if (mine && sbn_group_size(s->group) > 1)
        sbni_fail_in(status, "process %d", sbn_group_rank(s->group));
    sbni_fail_in(status, "step %" PRId64, s->step);
    if (!is_not_finite(status) || !s->cfg->max_skips) return status;
    if (s->skip.in_a_row == s->cfg->max_skips)
        return sbni_fail_in(status, "more than %" PRId64 " steps in a row are not finite",
                            s->cfg->max_skips);
    s->skip.in_a_row++;
    *skipped = true;
    undo(s);
    return SBN_OK;
}

void sbni_skip_close(sbni_skip *skip)
{
    sbni_snapshot_free(&skip->before);
}

/* Steps whose loss, statistics or gradients are not finite: what they did is undone, and
 * the run goes on behind them, for as long as they do not follow each other too often. */
#ifndef SBNI_SKIP_H
#define SBNI_SKIP_H

#include "core/status.h"
#include "train/snapshot.h"

struct sbni_session;

typedef struct sbni_skip {
    sbni_snapshot before; /* the step; empty where such steps end the run */
    int64_t in_a_row, all;
} sbni_skip;

/* Before each step, and once before the first, which is where it may fail: SBN_E_MEMORY.
 * Local. */
sbn_status sbni_skip_prepare(struct sbni_session *session);

/*
 * What becomes of a step's status, of the same kind on all processes. One that is not
 * finite: SBN_OK, with model and metrics as if the step had not been tried, or its text
 * with process and step before it. Other failures get the step alone.
 */
sbn_status sbni_skip_judge(struct sbni_session *session, sbn_status status,
                           bool *skipped);

void sbni_skip_close(sbni_skip *skip);

#endif

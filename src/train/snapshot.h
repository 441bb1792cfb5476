/* What a measurement moves in a model and must put back: running statistics and the
 * exponents of gradient sums. */
#ifndef SBNI_SNAPSHOT_H
#define SBNI_SNAPSHOT_H

#include "syncbn/model.h"

typedef struct sbni_snapshot {
    char *bytes;
} sbni_snapshot;

/* Local; SBN_E_MEMORY, not where the snapshot was taken before of the same model. Free it
 * also when that failed. */
sbn_status sbni_snapshot_take(sbn_model *model, sbni_snapshot *snapshot);
void sbni_snapshot_restore(const sbni_snapshot *snapshot, sbn_model *model);
void sbni_snapshot_free(sbni_snapshot *snapshot);

#endif

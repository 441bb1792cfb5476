/* Every process holds the same weights; whether it still does is looked after. */
#ifndef SBNI_REPLICAS_H
#define SBNI_REPLICAS_H

#include "syncbn/group.h"
#include "syncbn/model.h"
#include "syncbn/optim.h"

/*
 * Compare what the processes hold behind a step: weights, buffers, the optimizer's state.
 * They differ where memory has lost a bit, or where processors or libraries of the hosts
 * round differently.
 * @collective 16 bytes, and 8 of each process more where they differ.
 * SBN_E_STATE on the processes that most of the others differ from (on all where no more
 * than half agree), SBN_E_PEER on the others; the text names them.
 */
sbn_status sbni_replicas_check(sbn_group *group, const sbn_model *model,
                               sbn_optimizer *optimizer, int64_t step);

#endif

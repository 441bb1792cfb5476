/* Handing out trials: whoever is free takes the next, by a counter in a file. Nobody has
 * to answer, so processes that train need not look at messages meanwhile. */
#ifndef SBNI_CLAIM_H
#define SBNI_CLAIM_H

#include <stdbool.h>
#include <stdint.h>

#include "core/status.h"

typedef struct sbni_claims sbni_claims;

/* How far all processes are. */
typedef struct sbni_claims_state {
    int64_t next; /* item to be taken next */
    int64_t done; /* items finished */
    double cost;  /* of these, in all */
} sbni_claims_state;

/* Begin, in one process, which holds the folder's lock: a new counter at 0; what an
 * earlier job left does not matter. SBN_E_IO. */
sbn_status sbni_claims_begin(const char *path, sbni_claims **claims);

/* Take part in what another process began. SBN_E_IO. */
sbn_status sbni_claims_join(const char *path, sbni_claims **claims);

/* Take the next of n items: *item, or -1 where none is left. SBN_E_IO. */
sbn_status sbni_claims_take(sbni_claims *claims, int64_t n, int64_t *item);

/* Tell that an item of that cost is finished; receives what all have done by then. */
sbn_status sbni_claims_finish(sbni_claims *claims, double cost, sbni_claims_state *state);

/* Nobody takes another item. */
sbn_status sbni_claims_stop(sbni_claims *claims);

/* Close; the file stays. NULL is fine. */
void sbni_claims_end(sbni_claims **claims);

#endif

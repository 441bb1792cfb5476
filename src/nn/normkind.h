/* The kinds of normalization as text: on the command line, in weights, checkpoints and
 * run.json. */
#ifndef SBNI_NORMKIND_H
#define SBNI_NORMKIND_H

#include "core/status.h"
#include "syncbn/model.h"

/* What sbni_normkind_parse takes, for help and errors. */
#define SBNI_NORMKIND_CHOICES "batch|renorm|group:G|none"

enum { SBNI_NORMKIND_BYTES = 32 };

/* SBN_E_ARG for a kind that is none, or groups below 1 where they count. */
sbn_status sbni_normkind_check(sbn_model_norm norm, int64_t groups);

/* "batch", "renorm", "group:4", "none". */
void sbni_normkind_print(sbn_model_norm norm, int64_t groups,
                         char text[SBNI_NORMKIND_BYTES]);

/* The other way round; groups stay where the text has none. SBN_E_ARG: expected, got. */
sbn_status sbni_normkind_parse(const char *text, sbn_model_norm *norm, int64_t *groups);

#endif

/* What must be the same on all processes, and who differs where it is not. */
#ifndef SBNI_ALIKE_H
#define SBNI_ALIKE_H

#include <stdint.h>

#include "comm/group.h"

/* A thing to compare, as text. */
typedef struct sbni_named {
    const char *key, *value;
} sbni_named;

/* Compare a list with those of the other processes. SBN_E_MISMATCH on all of them, with
 * one text: the first key that differs (behind `prefix`), its values and who has them.
 * @collective 16 bytes; when it fails 16 more for each key, 8 and some texts of 256 bytes
 */
sbn_status sbni_alike(sbn_group *group, const char *prefix, const sbni_named *list,
                      int n);

/* Of one text. */
sbn_status sbni_compare_text(sbn_group *group, const char *what, const char *text);

/* For a value that each process has, and its text: "60 on process 0, 64 on processes 1,
 * 2" into list, the same on all processes. The first few values, in order of process.
 * @collective an agreement, 8 bytes from each process, and 256 from some. */
sbn_status sbni_alike_tell(sbn_group *group, uint64_t value, const char *text, char *list,
                           int64_t bytes);

/* Check that a value is the same on all processes; `what` names it in the SBN_E_MISMATCH
 * text, which is the same on every process. @collective (16 bytes; failing: as tell) */
sbn_status sbni_group_check_same(sbn_group *group, int64_t value, const char *what);

#endif

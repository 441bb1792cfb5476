/* Check mode, SBN_CHECK_COLLECTIVES=1 in the environment: before each collective of a
 * group its processes compare which one they are in. */
#ifndef SBNI_LOCKSTEP_H
#define SBNI_LOCKSTEP_H

#include <stdbool.h>

#include "comm/group.h"

/* Whether the environment asks for it. One process that asks suffices. */
bool sbni_lockstep_is_wanted(void);

/* Begin it for a group. @collective a MPI_Comm_dup */
sbn_status sbni_lockstep_begin(sbn_group *group);

/*
 * SBN_E_MISMATCH on all processes, with one text, where their calls differ: layer and
 * phase, how often it was called, words, and who calls what. From then on every call of
 * the group fails, as nobody knows where the others are. Nothing without check mode.
 * @collective 16 bytes; 8 and some texts of 256 bytes where it fails
 */
sbn_status sbni_lockstep(sbn_group *group, const sbni_call *call);

#endif

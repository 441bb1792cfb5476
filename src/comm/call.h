/* A collective call, as it is told when it goes wrong: what it is, and how often it was
 * made before. Processes note on the board (comm/board.h) which ones they came to. */
#ifndef SBNI_CALL_H
#define SBNI_CALL_H

#include <stdint.h>

#include "syncbn/status.h"

struct sbn_group;

enum { SBNI_CALL_TEXT = 56 };

typedef struct sbni_call {
    char text[SBNI_CALL_TEXT]; /* "conv2_bn forward", zeros behind it */
    int64_t call;              /* of this text: 1, 2, … */
    int64_t words;             /* of the message */
    int64_t layer;             /* of the group's, from 1; 0: no layer's */
    uint64_t number;           /* among all of the group; 0: nobody watches */
} sbni_call;

/* A call of that text, made for the first time. */
sbni_call sbni_call_of(const char *name, const char *phase, int64_t words);

/* One number that differs when the call does. */
uint64_t sbni_call_digest(const sbni_call *call);

/* This process comes to the call: others need no longer wait for it. Between the two,
 * sbni_call_waits says that it stands still until the others come, sbni_call_goes_on that
 * they did. All cost a few stores, and nothing where nobody watches. In check mode
 * (comm/lockstep.h) comes and enter wait for the others: SBN_E_MISMATCH where they are in
 * another call. */
sbn_status sbni_call_comes(struct sbn_group *group, sbni_call *call);
void sbni_call_waits(struct sbn_group *group, const sbni_call *call);
void sbni_call_goes_on(struct sbn_group *group);

/* The first two at once, for blocking calls that nobody keeps: agreements, comparisons.
 */
sbn_status sbni_call_enter(struct sbn_group *group, const char *text, int64_t words);

/* The same for what may take any time while all processes live, as some work on their own
 * for long: only a process or host without a sign of life makes it a stall. */
sbn_status sbni_call_enter_long(struct sbn_group *group, const char *text);

/* The step that the program is in, for texts. */
void sbni_call_step(struct sbn_group *group, int64_t step);

#endif

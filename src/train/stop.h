/* Why a run should end before its last step. Each process votes before a step; the sum
 * of the votes travels with the gradients, so all end behind the same step. */
#ifndef SBNI_STOP_H
#define SBNI_STOP_H

#include <stdint.h>

#include "syncbn/trainer.h"

typedef struct sbni_stop {
    const sbn_trainer_config *cfg;
    double began_s, looked_s;
    bool looks; /* this process looks for the halt file */
} sbni_stop;

/* looks: whether this process is the one that looks for the halt file. */
sbni_stop sbni_stop_begin(const sbn_trainer_config *cfg, bool looks);

/* This process's vote; 0: go on. The file system is asked once a second. */
int64_t sbni_stop_vote(sbni_stop *stop);

/* What votes, added over the processes, say: "a signal", "its time limit", "a halt file".
 */
const char *sbni_stop_reason(int64_t votes);

/* Remove the halt file, which has done its work. */
void sbni_stop_heeded(const sbni_stop *stop);

#endif

/* run.json: the facts of a run that its results do not depend on. */
#ifndef SBNI_RUNFILE_H
#define SBNI_RUNFILE_H

#include <stdbool.h>

#include "syncbn/trainer.h"

/* What the speed of a run depends on, as far as the program can tell. */
typedef struct sbni_machine {
    char cpu[256]; /* "" where the system does not say */
    int cores;     /* that this process may use */
    int threads;
    const char *isa, *mpi, *blas, *version, *revision; /* owned by libraries */
} sbni_machine;

/* Local. */
void sbni_machine_get(sbni_machine *machine);

/* Whether the run.json at path is of the run that SBN_RUN_ID names in the environment; a
 * launcher gives it to all starts of one run. Local; *same where there is no such name.
 * @errors SBN_E_IO where a file is there and cannot be read */
sbn_status sbni_runfile_same(const char *path, bool *same);

/* Write OUT/run.json on process 0. memory: of its model, hosts: of the group.
 * @errors SBN_E_IO, SBN_E_MEMORY */
sbn_status sbni_runfile_write(const char *path, const sbn_trainer_config *cfg,
                              const sbn_model_memory *memory, int np, int hosts);

#endif

/* What must hold before the processes of a run talk to each other. */
#ifndef SBNI_CLI_STARTUP_H
#define SBNI_CLI_STARTUP_H

#include "syncbn/group.h"

/* Refuse a process that believes to be alone where a launcher started several: of another
 * MPI, each would make a run of its own. found: how many MPI has found, or 0 before it
 * has started, when only launchers count by which it cannot find anyone: starting Open
 * MPI alone several times at once can fail. SBN_E_MISMATCH; *speaks: whether this process
 * is the one of them that says so. Local. */
sbn_status sbni_check_launcher(int found, bool *speaks);

/* What its launcher tells a process before MPI runs: its rank, how many there are, and
 * how many of them on this host; here 0: it does not tell. Without a launcher, one of
 * one. */
typedef struct sbni_launched {
    int rank, size, here;
} sbni_launched;
sbni_launched sbni_launched_as(void);

/* Compare what the processes' programs are: SBN_E_MISMATCH names what differs, and who
 * has what. @collective 16 bytes */
sbn_status sbni_check_builds(sbn_group *group);

/* What a build is: version with revision, and the sizes and order of bytes in messages;
 * cli/build.c. Owned by the program. */
const char *sbni_build_version(void);
const char *sbni_build_words(void);

#endif

/** A group of processes that share statistics, and how they agree on failures. */
#ifndef SYNCBN_GROUP_H
#define SYNCBN_GROUP_H

#include <mpi.h>

#include "syncbn/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sbn_group sbn_group;

/**
 * Make a group of the processes of an intracommunicator, which is duplicated: messages of
 * the library never meet the caller's. The duplicate returns errors rather than ending
 * the job.
 * @param comm   any intracommunicator, MPI_COMM_SELF included; stays the caller's.
 * @param group  receives the group; destroy it before MPI_Finalize.
 * @collective over comm (one MPI_Comm_dup).
 * @errors SBN_E_ARG (null), SBN_E_STATE (MPI not initialized or finalized), SBN_E_MPI,
 * SBN_E_MEMORY
 */
SBN_API sbn_status sbn_group_create(MPI_Comm comm, sbn_group **group);

/** Free a group and null the pointer; NULL and *group == NULL are fine. @collective over
 * the group. */
SBN_API void sbn_group_destroy(sbn_group **group);

/** This process's rank in the group, 0 … size-1. */
SBN_API int sbn_group_rank(const sbn_group *group);

/** Number of processes in the group, ≥ 1. */
SBN_API int sbn_group_size(const sbn_group *group);

/**
 * Turn a failure of one process into a failure of all, so that nobody waits for a process
 * that left.
 * @param mine  this process's own outcome.
 * @return mine where it is a failure; SBN_E_PEER where only others failed, and then
 * sbn_last_error() names the lowest failing rank with its text and sbn_peer_status() is
 * its status; else SBN_OK.
 * @collective over the group: 4 bytes; on failure one more broadcast of 520 bytes.
 */
SBN_API sbn_status sbn_group_agree(sbn_group *group, sbn_status mine);

#ifdef __cplusplus
}
#endif
#endif

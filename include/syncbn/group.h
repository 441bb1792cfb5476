/** A group of processes that share statistics, and how they agree on failures. */
#ifndef SYNCBN_GROUP_H
#define SYNCBN_GROUP_H

#include <mpi.h>
#include <stdbool.h>
#include <stdint.h>

#include "syncbn/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * What the other headers call a sum, or a message, of bytes goes through memory that the
 * processes share where all of the group are on one host that lets them: twice those
 * bytes of each process, and once for all of them where they are more than 64 KiB
 * together, which stay with the layer, model or call that sends them. Else, or with
 * SBN_SUMS=mpi in the environment of one, it is an MPI_Allreduce or MPI_Iallreduce. Both
 * give the same integers.
 *
 * A message is connected before it is sent for the first time: through memory 36 bytes,
 * and 36 more for the first of its length; by MPI a communicator (MPI_Comm_dup) for the
 * first of its length, so that calls in different orders never meet with different
 * counts.
 *
 * Calls of the library that are collective over a group come in one order on all of its
 * processes; out of order they wait for each other, or are refused where their messages
 * have one length. With SBN_CHECK_COLLECTIVES=1 in the environment of some process when a
 * group is made, its processes compare before each collective which one they are in: 16
 * bytes more each time, and SBN_E_MISMATCH on all of them, with one text that names
 * layer, phase, number of calls, words, and who is where. Every later call of such a
 * group fails too; it can only be destroyed.
 */
typedef struct sbn_group sbn_group;

/**
 * Make a group of the processes of an intracommunicator, which is duplicated: messages of
 * the library never meet the caller's. The duplicate returns errors rather than ending
 * the job.
 * @param comm   any intracommunicator, MPI_COMM_SELF included; stays the caller's.
 * @param group  receives the group; destroy it before MPI_Finalize.
 * @collective over comm: one MPI_Comm_dup, 4 bytes (524 on failure), and in a group of
 * several one MPI_Comm_split_type and 136 bytes.
 * @errors SBN_E_ARG (null), SBN_E_STATE (MPI not initialized or finalized), SBN_E_MPI,
 * SBN_E_MEMORY, SBN_E_PEER (another process failed)
 */
SBN_API sbn_status sbn_group_create(MPI_Comm comm, sbn_group **group);

/**
 * Make groups of some of the processes each, as MPI_Comm_split does: one group for every
 * color. Layers made in different groups never exchange a message.
 * @param comm   any intracommunicator; stays the caller's.
 * @param color  ≥ 0, or MPI_UNDEFINED: in no group, and *group is NULL.
 * @param key    order of the ranks in the group; ties by rank in comm.
 * @param group  receives the group of this process's color; destroy it before
 * MPI_Finalize.
 * @collective over comm: one MPI_Comm_dup, 4 bytes (524 on failure), one MPI_Comm_split;
 * over comm and over the group, where they have several processes, one
 * MPI_Comm_split_type and 136 bytes.
 * @errors SBN_E_ARG (color, null), SBN_E_STATE, SBN_E_MPI, SBN_E_MEMORY; SBN_E_PEER where
 * only other processes failed. No group is made anywhere then.
 */
SBN_API sbn_status sbn_group_split(MPI_Comm comm, int color, int key, sbn_group **group);

/**
 * Make groups of group_size consecutive ranks: 0 … k-1, k … 2k-1, and so on. 1 makes
 * every process a group of its own; the number of processes makes one group of all.
 * @param comm        any intracommunicator; stays the caller's.
 * @param group_size  k, 1 … number of processes, which it divides; the same everywhere.
 * @param group       receives this process's group; destroy it before MPI_Finalize.
 * @collective over comm: one MPI_Comm_dup, 20 bytes (540 on failure), one MPI_Comm_split;
 * over comm and over the group, where they have several processes, one
 * MPI_Comm_split_type and 136 bytes.
 * @errors on all processes: SBN_E_ARG (k does not divide), SBN_E_MISMATCH (k differs);
 * else as sbn_group_split.
 */
SBN_API sbn_status sbn_group_split_size(MPI_Comm comm, int group_size, sbn_group **group);

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

/** What messages of one kind have cost this process so far. */
typedef struct sbn_traffic {
    const char *name;  /**< of the layer, as its configuration says; the layers of a
                            message of gradients; "model"; "other" for agreements,
                            comparisons and broadcasts. The group's, until destroyed. */
    const char *phase; /**< "forward", "backward", "second", "precise", "merge",
                            "gradients", "evaluation", "activations"; "" of "other" */
    int64_t messages;  /**< sums that this process took part in */
    int64_t bytes;     /**< of all of them, as it handed them over */
    double begin_s;    /**< in handing over those that end later */
    double wait_s;     /**< in waiting for their end, and in blocking ones as a whole */
} sbn_traffic;

/**
 * Row by row what the messages of a group have cost. A layer has a row for each kind of
 * its messages from its creation on; layers of one name in one group share them, and they
 * stay when layers go. A group of one sends nothing and its rows stay 0. Of processes
 * that are compared, the one that waits least in a row is the one that the others wait
 * for.
 * @param row      0, 1, …; the last is "other".
 * @param traffic  receives the row.
 * @return whether there is such a row. Local.
 */
SBN_API bool sbn_group_traffic(const sbn_group *group, int row, sbn_traffic *traffic);

/** Count anew from here; begin on all processes at the same place. Local. */
SBN_API void sbn_group_clear_traffic(sbn_group *group);

#ifdef __cplusplus
}
#endif
#endif

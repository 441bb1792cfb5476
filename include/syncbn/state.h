/**
 * The state of norm layers in safetensors files, under the names that frameworks use:
 * PREFIX.weight, .bias, .running_mean, .running_var (c elements each) and
 * .num_batches_tracked (one int64). A layer that is not affine has no weight and bias,
 * one that does not track has none of the other three.
 *
 * Momentum and eps are settings of the layer and in no such file; sbn_momentum_from
 * translates the momentum of other systems.
 */
#ifndef SYNCBN_STATE_H
#define SYNCBN_STATE_H

#include <stdbool.h>

#include "syncbn/group.h"
#include "syncbn/norm.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A layer and its name in a file. */
typedef struct sbn_state_entry {
    const char *prefix; /**< e.g. "features.1"; "" for names without one; 200 bytes at
                           most. Borrowed for the call */
    sbn_norm *norm;     /**< the caller's */
    bool count_missing; /**< set by sbn_state_load: the file had no num_batches_tracked,
                           and the layer's is 0 now; false for untracked layers */
} sbn_state_entry;

/**
 * Write the state of n layers to a file, by process 0 of the group. The file is replaced
 * whole or not at all, and its bytes are a function of prefixes and state alone.
 * All processes must hold the same state, so that what is saved is everybody's: layers
 * of one group do, as long as parameters are updated alike. Statistics that processes
 * gathered apart are merged first (sbn_norm_merge), or saved by each for itself with a
 * group and a path of its own.
 * @param path     used on process 0; others may give NULL.
 * @param entries  n ≥ 1 layers, the same list on all processes; for one layer n is 1.
 * @param group    whose processes agree on the outcome; need not be the layers' own.
 * @collective over the group: 24 + 16·n bytes (524 more on failure).
 * @errors SBN_E_ARG (null, prefix, a name given twice, no path), SBN_E_STATE (a begin is
 * outstanding), SBN_E_MISMATCH on all processes (other layers or another state, naming
 * the layer), SBN_E_IO, SBN_E_MEMORY; SBN_E_PEER where only others failed. A NULL group
 * is a local error.
 */
SBN_API sbn_status sbn_state_save(const char *path, const sbn_state_entry *entries, int n,
                                  sbn_group *group);

/**
 * Set the state of n layers on every process of the group from a file that process 0
 * reads. Elements may be F64, F32, F16 or BF16 and are converted to the layer's type.
 * The mode of a layer, its settings and its gradients stay as they are.
 * A missing num_batches_tracked, as old files have it, is accepted and counts as 0: with
 * SBN_MOMENTUM_CUMULATIVE the next batch then replaces the running statistics. Tensors
 * that no layer of the list asks for are ignored.
 * @param path     used on process 0; others may give NULL.
 * @param entries  n ≥ 1 layers, the same list on all processes; for one layer n is 1.
 * @param group    whose processes take part; need not be the layers' own.
 * @collective over the group: 24 + 16·n bytes and one broadcast of 8·(n + 4·Σc) bytes at
 * most (524 more on failure).
 * @errors SBN_E_DATA (not a safetensors file; a tensor is missing, of another shape or
 * element type, has a value that is not finite in the layer's type, or a variance or
 * count below 0; a weight or bias for a layer that is not affine): the text has path,
 * tensor, expected, got; SBN_E_ARG, SBN_E_STATE, SBN_E_MISMATCH, SBN_E_IO, SBN_E_MEMORY,
 * SBN_E_PEER as for sbn_state_save. No layer changes on any process then.
 */
SBN_API sbn_status sbn_state_load(const char *path, sbn_state_entry *entries, int n,
                                  sbn_group *group);

#ifdef __cplusplus
}
#endif
#endif

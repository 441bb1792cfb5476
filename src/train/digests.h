/*
 * Digests of what a safetensors file holds, in its metadata: who reads it can tell a file
 * that is whole from one that a disk, a cable or memory has changed.
 */
#ifndef SBNI_DIGESTS_H
#define SBNI_DIGESTS_H

#include "train/safetensors.h"

/* Key of the metadata. Its value has 16 hexadecimal digits for all else that the header
 * says (metadata; names, types, shapes), then as many for the bytes of each tensor, in
 * the order of the data: XXH3 with 64 bits. */
#define SBNI_DIGESTS_KEY "xxh3"

/* The value for tensors and metadata that are about to be written; free with sbni_free.
 * SBN_E_MEMORY. */
sbn_status sbni_digests_make(const sbni_st_tensor *tensors, int n,
                             const char *const (*metadata)[2], int n_metadata,
                             char **text);

/* Check what was read; a file that holds no digests passes unless they are required.
 * SBN_E_DATA names the tensor that differs. */
sbn_status sbni_digests_check(const char *path, const sbni_st_file *file, bool required);

#endif

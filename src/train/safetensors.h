/*
 * The safetensors container: 8 bytes header length (little endian), a JSON header, then
 * the tensors' bytes without holes. Written atomically; every rule of the format is
 * checked on reading.
 */
#ifndef SBNI_SAFETENSORS_H
#define SBNI_SAFETENSORS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/status.h"

enum { SBNI_ST_MAX_AXES = 8 };

typedef struct sbni_st_tensor {
    const char *name; /* any UTF-8 without NUL, unique in the file, not "__metadata__" */
    const char
        *dtype; /* "F64" "F32" "I64" "U64" "I32" "U32" "U8" "I8" "BOOL" "F16" "BF16" */
    int axes;   /* 0 … SBNI_ST_MAX_AXES; 0 is a scalar */
    int64_t shape[SBNI_ST_MAX_AXES];
    const void *data; /* little-endian elements */
    int64_t bytes;
} sbni_st_tensor;

/*
 * Write a file such that after a crash at any moment the old or the new file is there
 * whole: write to a temporary name in the same folder, fsync, rename, fsync the folder.
 * The bytes are a function of the arguments other than path. Tensors are stored in the
 * order given, aligned to 8 bytes where the order allows; give 8-byte types first.
 * metadata: pairs of key and value. Errors: SBN_E_IO, SBN_E_MEMORY, SBN_E_ARG (bad name
 * or shape).
 */
sbn_status sbni_st_write(const char *path, const sbni_st_tensor *tensors, int n,
                         const char *const (*metadata)[2], int n_metadata);

typedef struct sbni_st_file sbni_st_file;

/* Map and check a whole file. SBN_E_IO when it can't be opened, SBN_E_DATA with the
 * reason when it is not a valid safetensors file. */
sbn_status sbni_st_open(const char *path, sbni_st_file **file);
void sbni_st_close(sbni_st_file **file); /* NULL is fine */

int sbni_st_count(const sbni_st_file *file);
/* Tensors in the order of their data; pointers are valid until close. */
const sbni_st_tensor *sbni_st_at(const sbni_st_file *file, int i);
/* NULL when there is none of that name. */
const sbni_st_tensor *sbni_st_find(const sbni_st_file *file, const char *name);
/* NULL when there is no such key. */
const char *sbni_st_metadata(const sbni_st_file *file, const char *key);

#endif

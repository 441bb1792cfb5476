/*
 * The safetensors container: 8 bytes header length (little endian), a JSON header, then
 * the tensors' bytes without holes, in C order. Written atomically; every rule of the
 * format is checked on reading.
 */
#ifndef SBNI_SAFETENSORS_H
#define SBNI_SAFETENSORS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/status.h"

enum { SBNI_ST_MAX_AXES = 8 };

typedef struct sbni_st_tensor {
    const char *name; /* any UTF-8 without NUL, unique in the file, not "__metadata__" */
    /* "F64" "F32" "F16" "BF16" "I64" "U64" "I32" "U32" "I16" "U16" "I8" "U8" "BOOL" */
    const char *dtype;
    int axes; /* 0 … SBNI_ST_MAX_AXES; 0 is a scalar */
    int64_t shape[SBNI_ST_MAX_AXES];
    const void *data; /* little-endian elements; NULL is fine when there are none */
    int64_t bytes;    /* product of shape times the size of dtype */
} sbni_st_tensor;

/*
 * Write a file such that after a crash at any moment the old or the new file is there
 * whole: write to a temporary name in the same folder, fsync, rename, fsync the folder
 * (where the file system knows no fsync of a folder, a power cut may undo the rename).
 * The bytes are a function of the arguments other than path. Tensors are stored in the
 * order given; the first is aligned to 8 bytes, the others where the order allows, so
 * give 8-byte types first. On failure what stood at path still stands.
 * metadata: pairs of key and value, UTF-8. Errors: SBN_E_IO, SBN_E_MEMORY, SBN_E_ARG
 * (name, dtype, shape, size, or a name or key given twice).
 */
sbn_status sbni_st_write(const char *path, const sbni_st_tensor *tensors, int n,
                         const char *const (*metadata)[2], int n_metadata);

/* The same; what stood at path before is then at previous, as by
 * sbni_replacement_commit, so where the file system makes no links there is a moment with
 * the old file at previous and none at path. NULL: it is gone. */
sbn_status sbni_st_write_keeping(const char *path, const char *previous,
                                 const sbni_st_tensor *tensors, int n,
                                 const char *const (*metadata)[2], int n_metadata);

typedef struct sbni_st_file sbni_st_file;

/* Map and check a whole file. SBN_E_IO when it can't be opened, SBN_E_DATA with the
 * reason when it is not a valid safetensors file, has more than SBNI_ST_MAX_AXES axes, a
 * dtype that is not listed above, or bytes that the disk cannot give. The file must not
 * be cut while it is open; replacing it is fine. */
sbn_status sbni_st_open(const char *path, sbni_st_file **file);
void sbni_st_close(sbni_st_file **file); /* NULL is fine */

int sbni_st_count(const sbni_st_file *file);
/* Tensors in the order of their data, 0 ≤ i < count; pointers are valid until close. data
 * is aligned for its dtype (copied where the file has it elsewhere). */
const sbni_st_tensor *sbni_st_at(const sbni_st_file *file, int i);
/* NULL when there is none of that name. */
const sbni_st_tensor *sbni_st_find(const sbni_st_file *file, const char *name);
/* NULL when there is no such key. */
const char *sbni_st_metadata(const sbni_st_file *file, const char *key);
/* Call visit(context, key, value) for all metadata, in no order that means anything. */
void sbni_st_visit_metadata(const sbni_st_file *file,
                            void (*visit)(void *context, const char *key,
                                          const char *value),
                            void *context);

#endif

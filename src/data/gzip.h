/*
 * Reading of files, plain or gzip; the first two bytes tell which. Inflates by itself
 * because zlib's gzread ignores foreign bytes behind the compressed data and reports a
 * truncated file only on closing it. Here every byte of a file is either accounted for or
 * an error.
 */
#ifndef SBNI_GZIP_H
#define SBNI_GZIP_H

#include <stdint.h>

#include "core/status.h"

typedef struct sbni_gzip sbni_gzip;

/* Open for reading. SBN_E_IO when the system refuses or path is no regular file. */
sbn_status sbni_gzip_open(const char *path, sbni_gzip **file);

/* Close, free and null; NULL is fine. */
void sbni_gzip_close(sbni_gzip **file);

/* The most bytes of content that a file of this size can hold: its size when plain,
 * deflate's best ratio when gzip. Refutes sizes in a header before memory is asked for.
 */
int64_t sbni_gzip_capacity(const sbni_gzip *file);

/* Read exactly this many bytes. SBN_E_DATA when fewer are left or the compressed data are
 * damaged, SBN_E_IO when the system refuses. */
sbn_status sbni_gzip_read(sbni_gzip *file, int64_t bytes, void *out);

/* Check that nothing follows and that the checksum, if there is one, is right. */
sbn_status sbni_gzip_end(sbni_gzip *file);

#endif

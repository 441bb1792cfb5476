/* Bytes that reach the disk, and files that are replaced whole or not at all. */
#ifndef SBNI_FILE_H
#define SBNI_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/status.h"

/* Write all bytes, going on after short and interrupted writes. Returns how many were
 * written; fewer than asked for is a failure and errno says which. */
int64_t sbni_file_write(int fd, const void *data, int64_t bytes);

/* Make what was written durable (fsync); things that cannot be synced, as pipes, are
 * fine. path is for the error. SBN_E_IO. */
sbn_status sbni_file_sync(int fd, const char *path);

/* Make the creation or renaming of path durable: fsync of its folder. SBN_E_IO. */
sbn_status sbni_file_sync_folder(const char *path);

/* A new content for a file: begin, write …, commit, and end in every case. */
typedef struct sbni_replacement sbni_replacement;

/* Open a temporary name beside path, which has to be a regular file or not exist.
 * SBN_E_IO. */
sbn_status sbni_replacement_begin(const char *path, sbni_replacement **replacement);

/* Append to the new content. SBN_E_IO. */
sbn_status sbni_replacement_write(sbni_replacement *replacement, const void *data,
                                  int64_t bytes);

/* fsync, rename to path, fsync the folder. After a crash at any moment the old or the new
 * content is there whole. previous: NULL, or a path in the same folder where the old
 * content stays; where links can be made, what was there gives way only when the new
 * content has its place, else a crash or failure may leave it as the only one.
 * SBN_E_IO. */
sbn_status sbni_replacement_commit(sbni_replacement *replacement, const char *previous);

/* Free; removes the temporary unless it was committed. NULL is fine. Keeps the error
 * text. */
void sbni_replacement_end(sbni_replacement **replacement);

/* Remove what processes left in a folder that died in the middle of replacing one of
 * these files. For who alone may replace them. SBN_E_IO; SBN_E_ARG where a path is too
 * long. */
sbn_status sbni_replacement_clean(const char *folder, const char *const files[], int n);

/* All of these for a text and a newline behind it. */
sbn_status sbni_replacement_text(const char *path, const char *text);

/* Make a folder and those above it, where they are missing. SBN_E_IO; SBN_E_ARG where the
 * path is too long. */
sbn_status sbni_folder_make(const char *folder);

#endif

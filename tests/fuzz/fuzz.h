/*
 * What the fuzz targets share. A target is LLVMFuzzerTestOneInput in a fuzz_<reader>.c:
 * it gives one input to a reader and aborts where the outcome breaks a promise. libFuzzer
 * drives it for hours (./run), replay.c for seconds in the suite.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "syncbn/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Make the lengths and counts inside a mutant fit again: most mutants would otherwise be
 * refused at the first look. */
void fuzz_mend(uint8_t *data, size_t size);

/* Inputs that the reader accepted so far. */
extern uint64_t fuzz_accepted;

#define FUZZ_CHECK(cond, ...)                                                            \
    do {                                                                                 \
        if (!(cond)) fuzz_broken(__FILE__, __LINE__, __VA_ARGS__);                       \
    } while (0)
__attribute__((format(printf, 3, 4), noreturn)) void
fuzz_broken(const char *file, int line, const char *format, ...);

/* A refused input: the status says that the data are to blame, and the text, which begins
 * with this, is one line without bytes that steer a terminal. */
void fuzz_check_refusal(sbn_status status, const char *beginning);

/* A new folder, in memory where the system has such. Made once. */
const char *fuzz_folder(void);
void fuzz_folder_remove(void);

/* The path of a name in the folder; up to 4 are valid at a time. */
const char *fuzz_path(const char *name);
void fuzz_write(const char *path, const void *bytes, size_t n);

/* All bytes of a file, to be freed; as large as the file to the byte, so that a sanitizer
 * sees what reads past its end. */
uint8_t *fuzz_read(const char *path, size_t *n);

#endif

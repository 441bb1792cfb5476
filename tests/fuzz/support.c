#include "fuzz.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint64_t fuzz_accepted;

static char folder[256];

void fuzz_broken(const char *file, int line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s:%d: broken promise: ", file, line);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

void fuzz_check_refusal(sbn_status status, const char *beginning)
{
    const char *text = sbn_last_error();
    FUZZ_CHECK(status == SBN_E_DATA, "refused with %s: %s", sbn_status_name(status),
               text);
    FUZZ_CHECK(!strncmp(text, beginning, strlen(beginning)),
               "expected an error that begins with \"%s\", got \"%s\"", beginning, text);
    FUZZ_CHECK(text[strlen(beginning)], "an error without a reason: \"%s\"", text);
    for (const char *at = text; *at; at++)
        FUZZ_CHECK((unsigned char)*at >= ' ' && *at != 0x7f,
                   "control byte %d in an error: \"%s\"", *at, text);
}

const char *fuzz_folder(void)
{
    if (folder[0]) return folder;
    const char *base = getenv("TMPDIR");
    if (!base) base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(folder, sizeof folder, "%s/syncbn-fuzz-XXXXXX", base);
    FUZZ_CHECK(mkdtemp(folder), "cannot make %s", folder);
    return folder;
}

void fuzz_folder_remove(void)
{
    DIR *entries = folder[0] ? opendir(folder) : NULL;
    if (!entries) return;
    for (const struct dirent *entry; (entry = readdir(entries));)
        if (entry->d_name[0] != '.') unlinkat(dirfd(entries), entry->d_name, 0);
    closedir(entries);
    rmdir(folder);
}

const char *fuzz_path(const char *name)
{
    static char paths[4][512];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", fuzz_folder(), name);
    return path;
}

void fuzz_write(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    FUZZ_CHECK(f && fwrite(bytes, 1, n, f) == n && fclose(f) == 0, "cannot write %s",
               path);
}

uint8_t *fuzz_read(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    FUZZ_CHECK(f && fseek(f, 0, SEEK_END) == 0, "cannot read %s", path);
    *n = (size_t)ftell(f);
    rewind(f);
    uint8_t *bytes = malloc(*n ? *n : 1);
    FUZZ_CHECK(bytes && fread(bytes, 1, *n, f) == *n, "cannot read %s", path);
    fclose(f);
    return bytes;
}

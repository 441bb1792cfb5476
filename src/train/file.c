#include "train/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/memory.h"

enum { PATH_BYTES = 4096 };

struct sbni_replacement {
    char *path, *temporary; /* temporary is NULL once it is renamed */
    int fd;
};

int64_t sbni_file_write(int fd, const void *data, int64_t bytes)
{
    const char *from = data;
    int64_t done = 0;
    while (done < bytes) {
        ssize_t n = write(fd, from + done, (size_t)(bytes - done));
        if (n < 0 && errno == EINTR) continue;
        /* Nothing written and no reason given would repeat forever. */
        if (n == 0) errno = EIO;
        if (n <= 0) break;
        done += n;
    }
    return done;
}

sbn_status sbni_file_sync(int fd, const char *path)
{
    int failed;
    do failed = fsync(fd) != 0;
    while (failed && errno == EINTR);
    /* EINVAL: not a kind of file that has anything to sync. */
    SBN_CHECK(!failed || errno == EINVAL, SBN_E_IO, "cannot sync %s: %s", path,
              strerror(errno));
    return SBN_OK;
}

sbn_status sbni_file_sync_folder(const char *path)
{
    char *folder = NULL;
    SBN_TRY(sbni_copy_string(path, &folder));
    char *slash = strrchr(folder, '/');
    if (slash) slash[slash == folder] = 0;
    const char *name = slash ? folder : ".";
    sbn_status status;
    int fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        status = sbni_fail(SBN_E_IO, "cannot open folder %s: %s", name, strerror(errno));
    } else {
        status = sbni_file_sync(fd, name);
        close(fd);
    }
    sbni_free(folder);
    return status;
}

sbn_status sbni_folder_make(const char *folder)
{
    char path[PATH_BYTES];
    int n = snprintf(path, sizeof path, "%s/", folder);
    SBN_CHECK(
        n < PATH_BYTES, SBN_E_ARG,
        "the path of the folder for results is too long: expected at most %d bytes, "
        "got %d",
        PATH_BYTES - 2, n - 1);
    SBN_CHECK(n > 1, SBN_E_ARG, "expected a folder for results, got nothing");
    for (char *at = path + 1; *at; at++) {
        if (*at != '/') continue;
        *at = 0;
        SBN_CHECK(mkdir(path, 0777) == 0 || errno == EEXIST, SBN_E_IO,
                  "cannot make folder %.200s: %s", path, strerror(errno));
        *at = '/';
    }
    struct stat info;
    SBN_CHECK(stat(path, &info) == 0 && S_ISDIR(info.st_mode), SBN_E_IO,
              "cannot write to %.200s: expected a folder", folder);
    return SBN_OK;
}

static sbn_status temporary_name(const char *path, char **temporary)
{
    int64_t bytes = (int64_t)strlen(path) + 32;
    SBN_TRY(sbni_alloc(bytes, 1, "temporary name", temporary));
    snprintf(*temporary, (size_t)bytes, "%s.tmp-%ld", path, (long)getpid());
    return SBN_OK;
}

/* Whether this is the name of a temporary of the file `of`. */
static bool is_temporary(const char *name, const char *of)
{
    size_t n = strlen(of);
    if (strncmp(name, of, n) != 0 || strncmp(name + n, ".tmp-", 5) != 0) return false;
    const char *number = name + n + 5;
    return *number && number[strspn(number, "0123456789")] == 0;
}

static sbn_status remove_temporary(const char *folder, const char *name)
{
    char path[PATH_BYTES];
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    SBN_CHECK(n < PATH_BYTES, SBN_E_ARG, "the path of %s is too long", folder);
    SBN_CHECK(unlink(path) == 0 || errno == ENOENT, SBN_E_IO, "cannot remove %s: %s",
              path, strerror(errno));
    return SBN_OK;
}

sbn_status sbni_replacement_clean(const char *folder, const char *const files[], int n)
{
    DIR *listing = opendir(folder);
    SBN_CHECK(listing, SBN_E_IO, "cannot list %s: %s", folder, strerror(errno));
    sbn_status status = SBN_OK;
    for (const struct dirent *entry; status == SBN_OK && (entry = readdir(listing));)
        for (int i = 0; status == SBN_OK && i < n; i++)
            if (is_temporary(entry->d_name, files[i]))
                status = remove_temporary(folder, entry->d_name);
    closedir(listing);
    return status;
}

sbn_status sbni_replacement_begin(const char *path, sbni_replacement **replacement)
{
    *replacement = NULL;
    struct stat s;
    /* Renaming over a device or a pipe would put a file in its place. */
    if (stat(path, &s) == 0 && !S_ISREG(s.st_mode))
        return sbni_fail(SBN_E_IO, "cannot replace %s: %s", path,
                         S_ISDIR(s.st_mode) ? strerror(EISDIR) : "Not a regular file");
    sbni_replacement *r = NULL;
    SBN_TRY(sbni_alloc(1, sizeof *r, "replacement", &r));
    r->fd = -1;
    char *temporary = NULL;
    sbn_status status;
    SBN_GOTO(sbni_copy_string(path, &r->path));
    SBN_GOTO(temporary_name(path, &temporary));
    /* What has this name was left by a dead process that had our number. */
    unlink(temporary);
    r->fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (r->fd < 0) {
        status = sbni_fail(SBN_E_IO, "cannot create %s: %s", temporary, strerror(errno));
        goto fail;
    }
    r->temporary = temporary;
    *replacement = r;
    return SBN_OK;
fail:
    sbni_free(temporary);
    sbni_replacement_end(&r);
    return status;
}

sbn_status sbni_replacement_write(sbni_replacement *r, const void *data, int64_t bytes)
{
    SBN_CHECK(sbni_file_write(r->fd, data, bytes) == bytes, SBN_E_IO,
              "cannot write %s: %s", r->path, strerror(errno));
    return SBN_OK;
}

/* Hold path by another name, which is freed with sbni_free; NULL: there is nothing yet,
 * or the file system knows no links, and path has become `previous` itself. */
static sbn_status hold(const char *path, const char *previous, char **held)
{
    SBN_TRY(temporary_name(previous, held));
    unlink(*held);
    if (link(path, *held) == 0) return SBN_OK;
    sbni_free(*held);
    *held = NULL;
    SBN_CHECK(rename(path, previous) == 0 || errno == ENOENT, SBN_E_IO,
              "cannot replace %s: %s", previous, strerror(errno));
    return SBN_OK;
}

/* The old content becomes `previous` when the new one is there: whenever the process is
 * killed the two names are of two contents, and no damage to one file is one to both. */
static sbn_status put_in_place(sbni_replacement *r, const char *previous)
{
    char *held = NULL;
    if (previous) SBN_TRY(hold(r->path, previous, &held));
    const char *failed = NULL;
    if (rename(r->temporary, r->path) != 0)
        failed = r->path;
    else if (held && rename(held, previous) != 0)
        failed = previous;
    int reason = errno;
    /* renaming one name of a file to another of the same file does nothing */
    if (held) unlink(held);
    sbni_free(held);
    SBN_CHECK(!failed, SBN_E_IO, "cannot replace %s: %s", failed, strerror(reason));
    return SBN_OK;
}

sbn_status sbni_replacement_commit(sbni_replacement *r, const char *previous)
{
    SBN_TRY(sbni_file_sync(r->fd, r->path));
    int fd = r->fd;
    r->fd = -1;
    /* Network file systems report a failed write here at the latest. */
    SBN_CHECK(close(fd) == 0, SBN_E_IO, "cannot write %s: %s", r->path, strerror(errno));
    SBN_TRY(put_in_place(r, previous));
    sbni_free(r->temporary);
    r->temporary = NULL;
    return sbni_file_sync_folder(r->path);
}

void sbni_replacement_end(sbni_replacement **replacement)
{
    if (!replacement || !*replacement) return;
    sbni_replacement *r = *replacement;
    if (r->fd >= 0) close(r->fd);
    if (r->temporary) unlink(r->temporary);
    sbni_free(r->temporary);
    sbni_free(r->path);
    sbni_free(r);
    *replacement = NULL;
}

sbn_status sbni_replacement_text(const char *path, const char *text)
{
    sbni_replacement *file = NULL;
    sbn_status status = sbni_replacement_begin(path, &file);
    if (status == SBN_OK)
        status = sbni_replacement_write(file, text, (int64_t)strlen(text));
    if (status == SBN_OK) status = sbni_replacement_write(file, "\n", 1);
    if (status == SBN_OK) status = sbni_replacement_commit(file, NULL);
    sbni_replacement_end(&file);
    return status;
}

#define _GNU_SOURCE /* locks that belong to an open file, not to a process */

#include "train/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/memory.h"
#include "core/text.h"
#include "train/file.h"
#include "train/folder.h"

enum { TEXT_BYTES = 1024, NAME_BYTES = 128 };

/* Seconds to wait for the holder. A server of files lets go of the lock of a host that
 * died only after a minute or two; who starts a run anew for that knows it. */
static double patience_s(void)
{
    const char *told = getenv("SBN_LOCK_WAIT");
    char *end;
    double wait_s = told ? sbni_text_to_real(told, &end) : 0;
    return told && *told && !*end && wait_s >= 0 ? wait_s : 2;
}

struct sbni_lock {
    char path[SBNI_PATH_BYTES];
    int fd;
};

/* Who holds a folder. A number is taken anew after a while; with the time of its start,
 * counted from that boot, it is one process. */
typedef struct holder {
    char host[NAME_BYTES], boot[NAME_BYTES], job[NAME_BYTES];
    int64_t pid, start;
} holder;

static void read_text(const char *path, char *text, size_t bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, bytes - 1);
    text[n < 0 ? 0 : n] = 0;
    if (fd >= 0) close(fd);
}

/* When a process started, in ticks since boot; 0: there is no such process, or it is a
 * dead one that nobody has asked after yet. */
static int64_t start_of(int64_t pid)
{
    char path[64], text[TEXT_BYTES];
    snprintf(path, sizeof path, "/proc/%" PRId64 "/stat", pid);
    read_text(path, text, sizeof text);
    /* the name, in parentheses, may hold anything; the state follows, 19 fields on */
    const char *at = strrchr(text, ')');
    if (!at || strlen(at) < 3 || at[2] == 'Z' || at[2] == 'X') return 0;
    at += 2;
    for (int field = 3; field < 22 && at; field++) {
        at = strchr(at, ' ');
        if (at) at++;
    }
    return at ? strtoll(at, NULL, 10) : 0;
}

static holder this_process(void)
{
    static const char *const jobs[] = {"SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID",
                                       "JOB_ID"};
    holder h = {.pid = getpid(), .start = start_of(getpid())};
    gethostname(h.host, sizeof h.host - 1);
    read_text("/proc/sys/kernel/random/boot_id", h.boot, sizeof h.boot);
    h.boot[strcspn(h.boot, "\n")] = 0;
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs && !h.job[0]; i++)
        if (getenv(jobs[i])) snprintf(h.job, sizeof h.job, "%s", getenv(jobs[i]));
    for (char *at = h.job; *at; at++)
        if (*at < ' ' || *at > '~') *at = '?';
    return h;
}

static void take_text(const json_t *object, const char *key, char text[NAME_BYTES])
{
    const char *value = json_string_value(json_object_get(object, key));
    snprintf(text, NAME_BYTES, "%s", value ? value : "");
}

/* pid 0: the file says nothing. */
static holder read_holder(const sbni_lock *lock)
{
    holder h = {.pid = 0};
    char text[TEXT_BYTES];
    ssize_t n = pread(lock->fd, text, sizeof text, 0);
    json_t *object = n > 0 ? json_loadb(text, (size_t)n, 0, NULL) : NULL;
    take_text(object, "host", h.host);
    take_text(object, "boot", h.boot);
    take_text(object, "job", h.job);
    h.pid = json_integer_value(json_object_get(object, "pid"));
    h.start = json_integer_value(json_object_get(object, "start"));
    json_decref(object);
    return h;
}

static sbn_status write_holder(const sbni_lock *lock)
{
    holder h = this_process();
    json_t *object =
        json_pack("{s:s s:s s:I s:I s:s}", "host", h.host, "boot", h.boot, "pid",
                  (json_int_t)h.pid, "start", (json_int_t)h.start, "job", h.job);
    char *text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    SBN_CHECK(text, SBN_E_MEMORY, "%s: no memory", lock->path);
    int64_t bytes = (int64_t)strlen(text);
    bool whole = ftruncate(lock->fd, 0) == 0 && lseek(lock->fd, 0, SEEK_SET) == 0 &&
                 sbni_file_write(lock->fd, text, bytes) == bytes;
    int reason = errno;
    free(text);
    SBN_CHECK(whole, SBN_E_IO, "cannot write %s: %s", lock->path, strerror(reason));
    return SBN_OK;
}

static bool may_live(const holder *h)
{
    holder me = this_process();
    if (!h->pid) return false;
    if (strcmp(h->host, me.host) != 0) return true;
    return strcmp(h->boot, me.boot) == 0 && h->start && start_of(h->pid) == h->start;
}

/* Whether the file is still the one of that name: its holder removes it at the end. */
static bool is_current(const sbni_lock *lock)
{
    struct stat mine, named;
    return fstat(lock->fd, &mine) == 0 && stat(lock->path, &named) == 0 &&
           mine.st_dev == named.st_dev && mine.st_ino == named.st_ino;
}

/* One attempt; *held where another run holds the folder. */
static sbn_status attempt(sbni_lock *lock, bool *held)
{
    *held = true;
    if (lock->fd >= 0) close(lock->fd);
    lock->fd = open(lock->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    SBN_CHECK(lock->fd >= 0, SBN_E_IO, "cannot open %s: %s", lock->path, strerror(errno));
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int locked;
    do locked = fcntl(lock->fd, F_OFD_SETLK, &whole) == 0;
    while (!locked && errno == EINTR);
    if (locked) {
        *held = !is_current(lock);
    } else if (errno != EAGAIN && errno != EACCES) { /* locks are not for this place */
        holder h = read_holder(lock);
        *held = may_live(&h) || !is_current(lock);
    }
    return *held ? SBN_OK : write_holder(lock);
}

static sbn_status refuse(const sbni_lock *lock, const char *folder)
{
    holder h = read_holder(lock);
    char since[64] = "";
    struct stat s;
    struct tm date;
    if (fstat(lock->fd, &s) == 0 && localtime_r(&s.st_mtime, &date))
        strftime(since, sizeof since, ", since %Y-%m-%d %H:%M:%S", &date);
    SBN_CHECK(h.pid, SBN_E_IO, "%.200s is in use by another run%s; choose another --out",
              folder, since);
    return sbni_fail(SBN_E_IO,
                     "%.200s is in use by another run: process %" PRId64
                     " on host %s%s%s%s; wait for its end or choose another --out "
                     "(remove %s if that process is gone)",
                     folder, h.pid, h.host, h.job[0] ? ", job " : "", h.job, since,
                     lock->path + strlen(folder) + 1);
}

sbn_status sbni_lock_take(const char *folder, sbni_lock **out)
{
    const struct timespec nap = {.tv_nsec = 20000000};
    double began_s = sbni_clock_s();
    sbni_lock *lock;
    bool held = true;
    *out = NULL;
    SBN_TRY(sbni_alloc(1, sizeof *lock, "lock", &lock));
    lock->fd = -1;
    sbn_status status = sbni_folder_path(folder, "run.lock", lock->path);
    while (status == SBN_OK && held) {
        status = attempt(lock, &held);
        if (status != SBN_OK || !held) break;
        if (sbni_clock_s() - began_s > patience_s())
            status = refuse(lock, folder);
        else
            nanosleep(&nap, NULL);
    }
    if (status == SBN_OK) {
        *out = lock;
        return SBN_OK;
    }
    if (!held) unlink(lock->path); /* ours, but there was no room to say so */
    if (lock->fd >= 0) close(lock->fd);
    sbni_free(lock);
    return status;
}

void sbni_lock_release(sbni_lock **lock)
{
    if (!lock || !*lock) return;
    unlink((*lock)->path);
    close((*lock)->fd);
    sbni_free(*lock);
    *lock = NULL;
}

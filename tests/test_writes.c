#include "syncbn/trainer.h"
#include "support/harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "train/checkpoint.h"

/* Whatever call of the system fails in a run, and whichever time: all processes end with
 * an error of writing, what was saved is whole, nothing else is left, and the run goes on
 * from there to the same weights. The linker's --wrap puts these in the calls' place. */

enum kind {
    WRITE,
    SHORT_WRITE,
    SYNC,
    CLOSE,
    RENAME,
    LINK,
    CREATE,
    MAKE_FOLDER,
    TRUNCATE,
    KINDS
};
static const char *const names[] = {"write", "short write", "fsync", "close",    "rename",
                                    "link",  "open",        "mkdir", "ftruncate"};
static const int reasons[] = {ENOSPC, EDQUOT, EIO, EROFS};

static enum kind armed = KINDS;
static int countdown, reason;
static int struck; /* a call has failed */
static int spared; /* it was the last one on the lock, of which nothing is kept, or of
                      something there is another way for */
static bool twins; /* at some moment the two checkpoints were one file */

/* Whether this call is the one that fails. */
static bool fails(enum kind kind)
{
    if (kind != armed || --countdown != 0) return false;
    errno = reason;
    struck = true;
    return true;
}

ssize_t __real_write(int fd, const void *data, size_t bytes);
ssize_t __wrap_write(int fd, const void *data, size_t bytes);
ssize_t __wrap_write(int fd, const void *data, size_t bytes)
{
    if (fails(WRITE)) return -1;
    /* a disk takes what it has room for, and nothing after that */
    if (armed == SHORT_WRITE && countdown < 0) {
        errno = reason;
        struck = true;
        return -1;
    }
    if (armed == SHORT_WRITE && --countdown == 0) {
        countdown = -1;
        return __real_write(fd, data, (bytes + 1) / 2);
    }
    return __real_write(fd, data, bytes);
}

/* None is awaited: what the disk does is not what this test is about. */
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    return fails(SYNC) || fcntl(fd, F_GETFD) < 0 ? -1 : 0;
}

/* Whether a file of ours was written here: descriptors of MPI close as ever. */
static bool is_written(int fd, char *path, size_t room)
{
    char entry[64];
    snprintf(entry, sizeof entry, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(entry, path, room - 1);
    path[n < 0 ? 0 : n] = 0;
    return strstr(path, strrchr(test_folder(), '/')) &&
           (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
}

/* The descriptor is gone all the same, as it is where a server refuses the last bytes. */
int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
    char path[2048];
    bool lost = armed == CLOSE && is_written(fd, path, sizeof path) && fails(CLOSE);
    int result = __real_close(fd);
    if (!lost) return result;
    if (strstr(path, "/run.lock")) spared = true;
    errno = reason;
    return -1;
}

int __real_ftruncate64(int fd, off_t bytes);
int __wrap_ftruncate64(int fd, off_t bytes);
int __wrap_ftruncate64(int fd, off_t bytes)
{
    char path[2048];
    if (!fails(TRUNCATE)) return __real_ftruncate64(fd, bytes);
    /* memory that can't be shared: sums go by MPI */
    spared = !is_written(fd, path, sizeof path);
    return -1;
}

/* Whether both checkpoints beside a file are one, which damage would be to both. */
static bool are_twins(const char *file)
{
    char path[2048];
    struct stat newest, previous;
    int n = (int)(strrchr(file, '/') - file);
    snprintf(path, sizeof path, "%.*s/checkpoint.safetensors", n, file);
    if (stat(path, &newest) != 0) return false;
    snprintf(path, sizeof path, "%.*s/checkpoint-previous.safetensors", n, file);
    return stat(path, &previous) == 0 && newest.st_ino == previous.st_ino;
}

int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to)
{
    if (fails(RENAME)) return -1;
    int code = __real_rename(from, to), error = errno;
    twins |= are_twins(to);
    errno = error;
    return code;
}

int __real_link(const char *from, const char *to);
int __wrap_link(const char *from, const char *to);
int __wrap_link(const char *from, const char *to)
{
    return fails(LINK) ? -1 : __real_link(from, to);
}

int __real_open64(const char *path, int flags, mode_t mode);
int __wrap_open64(const char *path, int flags, mode_t mode);
int __wrap_open64(const char *path, int flags, mode_t mode)
{
    return flags & O_CREAT && fails(CREATE) ? -1 : __real_open64(path, flags, mode);
}

int __real_mkdir(const char *path, mode_t mode);
int __wrap_mkdir(const char *path, mode_t mode);
int __wrap_mkdir(const char *path, mode_t mode)
{
    return fails(MAKE_FOLDER) ? -1 : __real_mkdir(path, mode);
}

/* --- a run ------------------------------------------------------------------- */

static const char *path_of(const char *name)
{
    static char path[2][2048];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", test_folder(), name);
    return path[turn];
}

static char *slurp(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    char *data = malloc(1 << 20);
    assert_non_null(data);
    *bytes = fread(data, 1, 1 << 20, f);
    fclose(f);
    return data;
}

static sbn_status train(const char *folder, bool resume)
{
    char out[1024], net[1024];
    snprintf(out, sizeof out, "%s", path_of(folder));
    snprintf(net, sizeof net, "%s", path_of("tiny.net"));
    sbn_trainer_config cfg = sbn_trainer_config_default();
    cfg.net = net;
    cfg.data = "synthetic";
    cfg.limit_train = 96;
    cfg.limit_test = 16;
    cfg.batch = 32;
    cfg.steps = 7;
    cfg.checkpoint_every = 2;
    cfg.progress = SBN_PROGRESS_NONE;
    cfg.out = out;
    cfg.resume = resume;
    sbn_trainer_result result;
    return sbn_train(&cfg, test_group, &result);
}

/* Names in the folder, which goes with them; a lock or a temporary fails the test. */
static void empty_folder(const char *folder, const char *what, bool remove)
{
    if (test_rank) return;
    DIR *listing = opendir(path_of(folder));
    if (!listing) return;
    for (const struct dirent *entry; (entry = readdir(listing));) {
        char name[600];
        if (entry->d_name[0] == '.') continue;
        if (strstr(entry->d_name, ".tmp-") || strstr(entry->d_name, ".lock"))
            fail_msg("%s left %s", what, entry->d_name);
        snprintf(name, sizeof name, "%.200s/%.300s", folder, entry->d_name);
        if (remove) assert_int_equal(unlink(path_of(name)), 0);
    }
    closedir(listing);
    if (remove) assert_int_equal(rmdir(path_of(folder)), 0);
}

static void check_whole(const char *file, const char *what)
{
    if (access(path_of(file), F_OK) == 0 && sbni_checkpoint_check(path_of(file)))
        fail_msg("%s: %s", what, sbn_last_error());
}

static char *want;
static size_t want_bytes;

static void undisturbed(void **state)
{
    (void)state;
    test_folder(); /* of all processes at once */
    static const char text[] = "input 1x28x28\nconv c out=2 kernel=5\nnorm n\nrelu\n"
                               "maxpool size=12\nlinear d out=10\nlogsoftmax\n";
    if (test_rank == 0) {
        FILE *f = fopen(path_of("tiny.net"), "w");
        assert_non_null(f);
        assert_true(fputs(text, f) >= 0 && fclose(f) == 0);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    OK(train("whole", false));
    if (test_rank == 0) want = slurp(path_of("whole/model.safetensors"), &want_bytes);
    empty_folder("whole", "an undisturbed run", true);
}

/* The k-th call of a kind fails. Returns whether there were that many. */
static bool fault(enum kind kind, int k, bool resume)
{
    char what[128];
    snprintf(what, sizeof what, "%s %d%s", names[kind], k, resume ? ", resuming" : "");
    armed = kind;
    countdown = k;
    struck = spared = false;
    reason = reasons[k % 4];
    sbn_status status = train("run", resume);
    int reached = struck, harmless = spared;
    MPI_Bcast(&reached, 1, MPI_INT, 0, MPI_COMM_WORLD);
    MPI_Bcast(&harmless, 1, MPI_INT, 0, MPI_COMM_WORLD);
    armed = KINDS;
    if (twins) fail_msg("%s: both checkpoints are one file", what);
    /* a file system without links is no fault */
    bool fine = !reached || kind == LINK || harmless;
    sbn_status expected = fine ? SBN_OK : test_rank == 0 ? SBN_E_IO : SBN_E_PEER;
    if (status != expected) fail_msg("%s: %s", what, sbn_last_error());
    if (!fine && !strstr(sbn_last_error(), strerror(reasons[k % 4])))
        fail_msg("%s: no reason in %s", what, sbn_last_error());
    if (!fine && test_rank) assert_int_equal(sbn_peer_status(), SBN_E_IO);
    empty_folder("run", what, false);
    if (test_rank == 0) {
        check_whole("run/checkpoint.safetensors", what);
        check_whole("run/checkpoint-previous.safetensors", what);
    }
    return reached;
}

static void expect_end(const char *what)
{
    OK(train("run", true));
    if (test_rank == 0) {
        size_t bytes;
        char *got = slurp(path_of("run/model.safetensors"), &bytes);
        if (bytes != want_bytes || memcmp(got, want, bytes))
            fail_msg("%s: other weights", what);
        free(got);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    empty_folder("run", what, true);
    MPI_Barrier(MPI_COMM_WORLD);
}

static void every_call_fails_once(void **state)
{
    (void)state;
    static const int least[] = {15, 15, 15, 8, 8, 3, 8, 2, 1};
    for (enum kind kind = 0; kind < KINDS; kind++) {
        int k = 1;
        while (fault(kind, k, false)) {
            expect_end(names[kind]);
            k += test_size; /* several processes are slower, and need no more than some */
        }
        expect_end(names[kind]);
        if (k <= least[kind])
            fail_msg("%s: met %d calls, fewer than %d", names[kind], k - 1, least[kind]);
    }
}

/* Again and again, each time a little later: in the end it is done. */
static void one_failure_after_another(void **state)
{
    (void)state;
    for (enum kind kind = 0; kind < LINK; kind++) {
        int k = 1;
        while (fault(kind, k, k > 1)) k += test_size;
        assert_in_range(k, 4, 100);
        expect_end(names[kind]);
    }
    free(want);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(undisturbed),
    cmocka_unit_test(every_call_fails_once),
    cmocka_unit_test(one_failure_after_another),
};
TEST_MAIN(tests)

#include "study/claim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/memory.h"
#include "train/file.h"

/* The counter's lock goes with its process. */
static const int64_t STOPPED = INT64_MAX / 2;

struct sbni_claims {
    int fd;
    char *path;
};

static int lock(int fd, short type, int command)
{
    struct flock region = {.l_type = type, .l_whence = SEEK_SET, .l_len = 1};
    int failed;
    do failed = fcntl(fd, command, &region);
    while (failed && errno == EINTR);
    return failed;
}

static sbn_status open_file(const char *path, int flags, sbni_claims **claims)
{
    sbni_claims *c;
    *claims = NULL;
    SBN_TRY(sbni_alloc(1, sizeof *c, "claims", &c));
    c->fd = open(path, O_RDWR | O_CLOEXEC | flags, 0666);
    sbn_status status =
        c->fd < 0 ? sbni_fail(SBN_E_IO, "cannot open %s: %s", path, strerror(errno))
                  : sbni_copy_string(path, &c->path);
    if (status == SBN_OK)
        *claims = c;
    else
        sbni_claims_end(&c);
    return status;
}

static sbn_status put(const sbni_claims *c, const sbni_claims_state *state)
{
    SBN_CHECK(pwrite(c->fd, state, sizeof *state, 0) == (ssize_t)sizeof *state, SBN_E_IO,
              "cannot write %s: %s", c->path, strerror(errno));
    return SBN_OK;
}

sbn_status sbni_claims_begin(const char *path, sbni_claims **claims)
{
    SBN_TRY(open_file(path, O_CREAT, claims));
    sbni_claims_state zero = {0, 0, 0};
    sbn_status status = put(*claims, &zero);
    if (status != SBN_OK) sbni_claims_end(claims);
    return status;
}

sbn_status sbni_claims_join(const char *path, sbni_claims **claims)
{
    return open_file(path, 0, claims);
}

/* What a holder of the lock does to the counter. */
typedef void (*state_change)(sbni_claims_state *state, const void *with);

static sbn_status update(sbni_claims *c, state_change change, const void *with,
                         sbni_claims_state *state)
{
    SBN_CHECK(lock(c->fd, F_WRLCK, F_SETLKW) == 0, SBN_E_IO, "cannot lock %s: %s",
              c->path, strerror(errno));
    sbn_status status = SBN_OK;
    if (pread(c->fd, state, sizeof *state, 0) != (ssize_t)sizeof *state)
        status = sbni_fail(SBN_E_IO, "cannot read %s: expected %zu bytes", c->path,
                           sizeof *state);
    if (status == SBN_OK) {
        change(state, with);
        status = put(c, state);
    }
    lock(c->fd, F_UNLCK, F_SETLK);
    return status;
}

static void take(sbni_claims_state *state, const void *n)
{
    if (state->next <= *(const int64_t *)n) state->next++;
}

static void add(sbni_claims_state *state, const void *cost)
{
    state->done++;
    state->cost += *(const double *)cost;
}

static void stop(sbni_claims_state *state, const void *unused)
{
    (void)unused;
    state->next = STOPPED;
}

sbn_status sbni_claims_take(sbni_claims *c, int64_t n, int64_t *item)
{
    sbni_claims_state state;
    SBN_TRY(update(c, take, &n, &state));
    *item = state.next <= n ? state.next - 1 : -1;
    return SBN_OK;
}

sbn_status sbni_claims_finish(sbni_claims *c, double cost, sbni_claims_state *state)
{
    return update(c, add, &cost, state);
}

sbn_status sbni_claims_stop(sbni_claims *c)
{
    sbni_claims_state state;
    return update(c, stop, NULL, &state);
}

void sbni_claims_end(sbni_claims **claims)
{
    if (!claims || !*claims) return;
    if ((*claims)->fd >= 0) close((*claims)->fd);
    sbni_free((*claims)->path);
    sbni_free(*claims);
    *claims = NULL;
}

#define _GNU_SOURCE /* struct ucred */
#include "cli/rollcall.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "cli/stall.h"
#include "cli/startup.h"
#include "core/clock.h"
#include "core/memory.h"
#include "core/text.h"
#include "core/thread.h"

/* The thread looks, and asks anew, so often, and at the limit. */
static const double NAP_S = 0.125;

/* It asks so long before the limit. Who is asleep is asked in the first half of it alone,
 * so that its queue, of ten messages, has room for the last. */
static const double ANSWERS_S = 0.5;

/* A host that misses nobody leaves so long to one that does, and to its launcher to end
 * all: that of process 0, and others. */
static const double ELSEWHERE_S[] = {0.6, 0.9};

/* Whom a process asks that is ahead leaves so long to that one. */
static const double YIELD_S = 1;

/* A launcher that ends the job wakes who is asleep, waits for a second, sends SIGTERM and
 * waits for another; a process that ends while it waits cuts that short, one that ends
 * before does not. */
static const struct timespec BEFORE_END = {.tv_nsec = 50000000};

typedef enum message_kind { ASKS, ANSWERS, HAS_TOLD, NOTHING } message_kind;

typedef struct message {
    int32_t kind, rank;
} message;

struct sbni_rollcall {
    pthread_t thread;
    atomic_bool ends;
    sbni_launched self;
    double limit_s;
    int wake;                /* the thread, to end */
    int fd;                  /* -1: there is no name, or no socket */
    struct sockaddr_un name; /* of rank 0; the rank is its last four bytes */
    socklen_t name_bytes;
    /* the thread's own */
    double waited_s;
    double yields_s;   /* since it was last asked by one that is ahead; < 0: by none */
    double asks_s;     /* since it asks; < 0: it does not */
    uint8_t *answered; /* [size] */
    uint8_t *absent;   /* [size] has no name on this host */
    uint8_t *asleep;   /* [size] has a name, and does not answer */
};

/* A job as its processes know it before MPI runs: MPICH's launcher does not tell, but is
 * the parent of those of a host, unless something is in between. */
static bool find_job(char *text, size_t bytes)
{
    const char *job = getenv("PMIX_NAMESPACE"), *step = getenv("SLURM_STEP_ID");
    if (!job && step) job = getenv("SLURM_JOB_ID");
    if (job) {
        snprintf(text, bytes, "syncbn/%s/%s", job, step ? step : "");
        return true;
    }
    char path[64], parent[16] = "";
    snprintf(path, sizeof path, "/proc/%ld/comm", (long)getppid());
    FILE *f = fopen(path, "re");
    if (f && !fgets(parent, sizeof parent, f)) parent[0] = 0;
    if (f) fclose(f);
    snprintf(text, bytes, "syncbn/of-process-%ld/", (long)getppid());
    return !strncmp(parent, "hydra", 5);
}

/* In the abstract namespace, where a name goes with its process, however that ends. */
static bool name_job(sbni_rollcall *r)
{
    char text[sizeof r->name.sun_path - 5];
    bool found = find_job(text, sizeof text);
    size_t n = strlen(text);
    r->name.sun_family = AF_UNIX;
    memcpy(r->name.sun_path + 1, text, n);
    r->name_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n + 4);
    return found;
}

static struct sockaddr_un name_of(const sbni_rollcall *r, int32_t rank)
{
    struct sockaddr_un name = r->name;
    memcpy((char *)&name + r->name_bytes - sizeof rank, &rank, sizeof rank);
    return name;
}

/* Whether the other has a name, be it asleep with a queue that is full. */
static bool send_to(const sbni_rollcall *r, int rank, message_kind kind, int flags)
{
    struct sockaddr_un to = name_of(r, rank);
    message m = {kind, r->self.rank};
    ssize_t sent = sendto(r->fd, &m, sizeof m, flags | MSG_NOSIGNAL,
                          (struct sockaddr *)&to, r->name_bytes);
    return sent == (ssize_t)sizeof m || errno == EAGAIN;
}

/* The next message of this user's; of another's, none that means anything. */
static bool receive(const sbni_rollcall *r, message *m)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec part = {m, sizeof *m};
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(r->fd, &header, MSG_DONTWAIT);
    if (n < 0) return false;
    struct cmsghdr *c = CMSG_FIRSTHDR(&header);
    struct ucred sender = {.uid = (uid_t)-1};
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS)
        memcpy(&sender, CMSG_DATA(c), sizeof sender);
    if (n != (ssize_t)sizeof *m || sender.uid != getuid() || m->rank < 0 ||
        m->rank >= r->self.size)
        m->kind = NOTHING;
    return true;
}

/* Those too that answered, so that they go on to leave it to this one. */
static void ask(sbni_rollcall *r)
{
    for (int i = 0; i < r->self.size; i++) {
        if (i == r->self.rank) continue;
        if (r->asleep[i] && r->asks_s > ANSWERS_S / 2) continue;
        bool named = send_to(r, i, ASKS, MSG_DONTWAIT);
        r->absent[i] = !named && !r->answered[i];
        r->asleep[i] = named && !r->answered[i];
    }
}

static void hear(sbni_rollcall *r, message m)
{
    switch (m.kind) {
    case ASKS: /* of two that ask at once the lower rank is ahead */
        send_to(r, m.rank, ANSWERS, 0);
        if (r->asks_s < 0 || m.rank < r->self.rank) r->yields_s = 0, r->asks_s = -1;
        break;
    case ANSWERS:
        r->answered[m.rank] = 1;
        r->absent[m.rank] = r->asleep[m.rank] = 0;
        break;
    case HAS_TOLD:
        nanosleep(&BEFORE_END, NULL);
        sbni_stall_end();
    default:
        break;
    }
}

/* One that is asleep hears it where the launcher wakes it to end it. */
_Noreturn static void end_all(const sbni_rollcall *r)
{
    for (int i = 0; i < r->self.size; i++)
        if (i != r->self.rank && !r->absent[i]) send_to(r, i, HAS_TOLD, MSG_DONTWAIT);
    sbni_stall_end();
}

static void tell(const sbni_rollcall *r, bool sleeper, int absent)
{
    char text[1024], list[160];
    sbni_text line = {text, 0, sizeof text};
    int size = r->self.size, here = r->self.here;
    sbni_text_add(&line,
                  "syncbn: no progress in the start of MPI: process %d has waited %.1f s "
                  "for ",
                  r->self.rank, r->waited_s);
    if (sleeper) {
        sbni_text_processes(r->asleep, size, list, sizeof list);
        sbni_text_add(&line, "%s (stopped)%s", list, absent > 0 ? "; " : "");
    }
    sbni_text_processes(r->absent, size, list, sizeof list);
    if (absent > 0 && here == size)
        sbni_text_add(&line, "%s (not there)", list);
    else if (absent > 0)
        sbni_text_add(&line, "%d of this host (not there), of %s", absent, list);
    else if (!sleeper && here == size)
        sbni_text_add(&line, "MPI itself; all processes are there");
    else if (!sleeper)
        sbni_text_add(&line, "some of %s (not on this host)", list);
    sbni_text_add(&line, "; allow more time by --stall-limit\n");
    sbni_stall_say(text);
    end_all(r);
}

/* Where nothing can be known of the others: process 0 speaks, or 1 where that one is
 * stopped. */
static void look_alone(const sbni_rollcall *r, double over_s)
{
    int rank = r->self.rank;
    char text[256];
    if (over_s < (rank == 0 ? 0 : rank == 1 ? ELSEWHERE_S[0] : ELSEWHERE_S[1])) return;
    snprintf(
        text, sizeof text,
        "syncbn: no progress in the start of MPI: process %d has waited %.1f s for the "
        "others; allow more time by --stall-limit\n",
        rank, r->waited_s);
    if (rank < 2) sbni_stall_say(text);
    sbni_stall_end();
}

static void look(sbni_rollcall *r, double passed_s)
{
    r->waited_s += passed_s;
    if (r->yields_s >= 0) r->yields_s += passed_s;
    if (r->yields_s > YIELD_S) r->yields_s = -1;
    double over_s = r->waited_s - r->limit_s;
    if (r->fd < 0) {
        look_alone(r, over_s);
        return;
    }
    if (over_s < -ANSWERS_S || r->yields_s >= 0) return;
    if (r->asks_s < 0) memset(r->answered, 0, (size_t)r->self.size);
    r->asks_s = r->asks_s < 0 ? 0 : r->asks_s + passed_s;
    ask(r);
    int absent = r->self.here, asleep = 0;
    for (int i = 0; i < r->self.size; i++) {
        absent -= !r->absent[i];
        asleep += r->asleep[i];
    }
    bool known = asleep || absent > 0 || r->self.here == r->self.size;
    double more_s = known ? 0 : ELSEWHERE_S[r->absent[0]];
    /* it began up to a nap late */
    if (r->asks_s > ANSWERS_S - 1.5 * NAP_S && over_s >= more_s)
        tell(r, asleep > 0, absent);
}

/* Of the time that passed while this process was suspended it counts no more than it may
 * have had. */
static void *run(void *argument)
{
    sbni_rollcall *r = argument;
    double last_s = sbni_clock_s();
    while (!atomic_load(&r->ends)) {
        double left_s = r->limit_s - r->waited_s,
               nap_s = left_s > 0 && left_s < NAP_S ? left_s : NAP_S;
        struct pollfd pollers[] = {{.fd = r->fd, .events = POLLIN},
                                   {.fd = r->wake, .events = POLLIN}};
        message m;
        if (poll(pollers, 2, (int)ceil(1e3 * nap_s)) > 0)
            while (receive(r, &m)) hear(r, m);
        double now_s = sbni_clock_s(), passed_s = now_s - last_s;
        if (passed_s < nap_s) continue;
        last_s = now_s;
        look(r, passed_s < 2 * nap_s ? passed_s : 2 * nap_s);
    }
    return NULL;
}

/* An answer waits for a moment where the other's queue is full. */
static int open_socket(sbni_rollcall *r)
{
    struct timeval moment = {.tv_usec = 100000};
    int on = 1, fd = name_job(r) ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
    struct sockaddr_un own = name_of(r, r->self.rank);
    if (fd < 0 || (!setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &moment, sizeof moment) &&
                   !setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) &&
                   !bind(fd, (struct sockaddr *)&own, r->name_bytes)))
        return fd;
    close(fd);
    return -1;
}

static void destroy(sbni_rollcall *r)
{
    if (r->fd >= 0) close(r->fd);
    if (r->wake >= 0) close(r->wake);
    sbni_free(r->answered);
    sbni_free(r->absent);
    sbni_free(r->asleep);
    sbni_free(r);
}

sbni_rollcall *sbni_rollcall_begin(double limit_s)
{
    sbni_rollcall *r;
    if (limit_s <= 0 || sbni_alloc(1, sizeof *r, "start", &r) != SBN_OK) return NULL;
    *r = (sbni_rollcall){.self = sbni_launched_as(),
                         .limit_s = limit_s,
                         .wake = eventfd(0, EFD_CLOEXEC),
                         .yields_s = -1,
                         .asks_s = -1};
    r->fd = open_socket(r);
    if (r->wake >= 0 && sbni_alloc(r->self.size, 1, "start", &r->answered) == SBN_OK &&
        sbni_alloc(r->self.size, 1, "start", &r->absent) == SBN_OK &&
        sbni_alloc(r->self.size, 1, "start", &r->asleep) == SBN_OK &&
        !sbni_thread_start(&r->thread, run, r))
        return r;
    destroy(r);
    return NULL;
}

void sbni_rollcall_end(sbni_rollcall *r)
{
    if (!r) return;
    atomic_store(&r->ends, true);
    eventfd_write(r->wake, 1);
    pthread_join(r->thread, NULL);
    destroy(r);
}

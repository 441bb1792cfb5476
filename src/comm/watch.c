#include "comm/watch.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "core/clock.h"
#include "core/memory.h"
#include "core/thread.h"

/* The thread looks so often within a limit; more seldom than the slowest only where the
 * end of a stall may come as late. */
static const double LOOKS = 20, SLOWEST_S = 0.25, FASTEST_S = 0.005;

/* Who does not speak waits so long for the line to be out; so does a host that misses
 * nobody of its own, as that of the missing process can tell more. */
static const double SILENT_S = 0.3, ELSEWHERE_S = 0.75;

/* No beat for so many looks, and so many seconds: no sign of life. */
static const double QUIET_LOOKS = 4, QUIET_S = 0.1;

typedef struct sbni_watcher {
    sbn_watch *watch;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake; /* the watch ends, or its limit changes */
    bool ends;
    double limit_s;
    sbn_stall_handler handler;
    void *context;
    /* the thread's own */
    uint64_t number;   /* of the call waited in when it last looked */
    double waited_s;   /* in it, by this process's own time */
    bool speaks;       /* and no other of the host, until it waits in another call */
    double silent_s;   /* since another process of the host began to speak; < 0: none */
    uint64_t *beats;   /* [here] last seen */
    double *quiet_s;   /* [here] since they changed */
    uint8_t *quiet;    /* [here] */
    uint64_t *heard;   /* [size] last seen, of hosts by their first process */
    double *unheard_s; /* [size] since they changed */
    uint8_t *lost;     /* [size] heard of before, and not within the limit */
    char what[SBNI_CALL_TEXT], text[SBNI_STALL_TEXT];
} sbni_watcher;

static double look_s(double limit_s)
{
    double s = limit_s > 0 ? limit_s / LOOKS : SLOWEST_S;
    return s > SLOWEST_S ? SLOWEST_S : s < FASTEST_S ? FASTEST_S : s;
}

static void see_others(sbni_watcher *w, double passed_s)
{
    const sbni_board *b = &w->watch->board;
    double quiet_s = QUIET_S + QUIET_LOOKS * look_s(w->limit_s);
    for (int i = 0; i < b->here; i++) {
        uint64_t beats = atomic_load_explicit(&b->seats[i].beats, memory_order_relaxed);
        w->quiet_s[i] = beats == w->beats[i] ? w->quiet_s[i] + passed_s : 0;
        w->beats[i] = beats;
        w->quiet[i] = w->quiet_s[i] > quiet_s;
    }
    uint32_t told = atomic_load(b->lost);
    for (int r = 0; r < b->size; r++) {
        uint64_t heard = atomic_load_explicit(&b->heard[r], memory_order_relaxed);
        w->unheard_s[r] = heard == w->heard[r] ? w->unheard_s[r] + passed_s : 0;
        w->heard[r] = heard;
        w->lost[r] = w->limit_s > 0 && heard > 0 && w->unheard_s[r] > w->limit_s;
    }
    if (told > 0 && w->limit_s > 0) w->lost[told - 1] = 1;
}

/* In a call that may take any time: a process of this host is quiet, or a host lost. */
static bool is_cut_off(const sbni_watcher *w)
{
    const sbni_board *b = &w->watch->board;
    return sbni_any(w->quiet, b->here) || sbni_any(w->lost, b->size);
}

/* In another: of this host one did not come; or of others, which had the time to tell. */
static bool is_missed(const sbni_watcher *w, uint64_t number)
{
    const sbni_board *b = &w->watch->board;
    if (b->here == b->size || w->waited_s > w->limit_s + ELSEWHERE_S) return true;
    for (int i = 0; i < b->here; i++)
        if (sbni_stall_misses(b, i, number, w->quiet[i])) return true;
    return false;
}

static void handle(sbni_watcher *w)
{
    sbn_stall stall;
    sbni_stall_tell(&w->watch->board, w->watch->rank, w->quiet, w->lost, w->waited_s,
                    w->what, w->text, &stall);
    stall.speaks = w->speaks;
    pthread_mutex_unlock(&w->lock); /* it may set another limit */
    w->handler(&stall, w->context);
    pthread_mutex_lock(&w->lock);
    w->waited_s = 0;
    w->silent_s = -1;
}

/* One process of the host speaks: the first that comes to it. */
static void speak(sbni_watcher *w)
{
    const sbni_board *b = &w->watch->board;
    uint32_t nobody = 0, me = (uint32_t)(b->mine - b->seats) + 1;
    if (!w->speaks && w->silent_s < 0)
        w->speaks = atomic_compare_exchange_strong(b->speaker, &nobody, me);
    if (w->speaks || w->silent_s >= SILENT_S)
        handle(w);
    else if (w->silent_s < 0)
        w->silent_s = 0;
}

/* The process that spoke ended: so do the others, whatever they are at; of them the one
 * that was stopped, and goes on when it is told to end. */
static bool speaker_is_gone(const sbni_watcher *w)
{
    uint32_t speaker = atomic_load(w->watch->board.speaker);
    return !w->speaks && speaker > 0 && w->quiet[speaker - 1];
}

/* It waits no more, or in another call. */
static void forget(sbni_watcher *w, uint64_t number)
{
    if (w->speaks) atomic_store(w->watch->board.speaker, 0);
    w->speaks = false;
    w->number = number;
    w->waited_s = 0;
    w->silent_s = -1;
}

/* passed_s: time that this process has had since the last look. */
static void look(sbni_watcher *w, double passed_s)
{
    const sbni_board *b = &w->watch->board;
    uint64_t number = atomic_load_explicit(&b->mine->waits, memory_order_acquire);
    atomic_fetch_add_explicit(&b->mine->beats, 1, memory_order_relaxed);
    sbni_beacon_tend(&w->watch->beacon, w->limit_s, w->lost);
    see_others(w, passed_s);
    if (speaker_is_gone(w)) {
        handle(w);
        return;
    }
    if (number == 0 || number != w->number) {
        forget(w, number);
        return;
    }
    w->waited_s += passed_s;
    if (w->silent_s >= 0) w->silent_s += passed_s;
    if (w->limit_s <= 0 || w->waited_s <= w->limit_s) return;
    bool has_time =
        number == atomic_load_explicit(&b->mine->has_time, memory_order_relaxed);
    bool stalls = has_time ? is_cut_off(w) : is_missed(w, number);
    if (number != atomic_load_explicit(&b->mine->waits, memory_order_acquire)) return;
    if (stalls) speak(w);
}

static struct timespec after(double s)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    double whole = floor(s);
    t.tv_sec += (time_t)whole;
    t.tv_nsec += (long)(1e9 * (s - whole));
    if (t.tv_nsec >= 1000000000) t.tv_sec++, t.tv_nsec -= 1000000000;
    return t;
}

/* A process that was suspended finds much more time gone than it slept; of that it counts
 * no more than it may have had. */
static void *run(void *argument)
{
    sbni_watcher *w = argument;
    double last_s = sbni_clock_s();
    pthread_mutex_lock(&w->lock);
    while (!w->ends) {
        double nap_s = look_s(w->limit_s);
        struct timespec until = after(nap_s);
        if (pthread_cond_timedwait(&w->wake, &w->lock, &until) != ETIMEDOUT) continue;
        double now_s = sbni_clock_s(), passed_s = now_s - last_s;
        last_s = now_s;
        look(w, passed_s < 2 * nap_s ? passed_s : 2 * nap_s);
    }
    if (w->speaks) atomic_store(w->watch->board.speaker, 0);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static sbn_status check(const sbn_group *group, double limit_s, sbn_stall_handler handler)
{
    SBN_CHECK(handler, SBN_E_ARG, "sbn_watch_create: expected a handler, got NULL");
    SBN_CHECK(limit_s >= 0 && isfinite(limit_s), SBN_E_ARG,
              "sbn_watch_create: expected a limit of 0 or more seconds, got %g", limit_s);
    SBN_CHECK(!group->watch, SBN_E_STATE,
              "sbn_watch_create: the group is watched already");
    return SBN_OK;
}

static void free_watcher(sbni_watcher *w)
{
    sbni_free(w->beats);
    sbni_free(w->quiet_s);
    sbni_free(w->quiet);
    sbni_free(w->heard);
    sbni_free(w->unheard_s);
    sbni_free(w->lost);
    sbni_free(w);
}

static sbn_status make_watcher(sbn_watch *watch, double limit_s,
                               sbn_stall_handler handler, void *context)
{
    sbni_watcher *w;
    int here = watch->board.here, size = watch->board.size;
    SBN_TRY(sbni_alloc(1, sizeof *w, "watch", &w));
    *w = (sbni_watcher){.watch = watch,
                        .limit_s = limit_s,
                        .handler = handler,
                        .context = context,
                        .silent_s = -1};
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&w->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&w->lock, NULL);
    sbn_status status = sbni_alloc(here, 8, "watch", &w->beats);
    if (status == SBN_OK) status = sbni_alloc(here, 8, "watch", &w->quiet_s);
    if (status == SBN_OK) status = sbni_alloc(here, 1, "watch", &w->quiet);
    if (status == SBN_OK) status = sbni_alloc(size, 8, "watch", &w->heard);
    if (status == SBN_OK) status = sbni_alloc(size, 8, "watch", &w->unheard_s);
    if (status == SBN_OK) status = sbni_alloc(size, 1, "watch", &w->lost);
    int error = status == SBN_OK ? sbni_thread_start(&w->thread, run, w) : 0;
    if (error)
        status =
            sbni_fail(SBN_E_STATE, "sbn_watch_create: no thread: %s", strerror(error));
    if (status == SBN_OK) {
        watch->watcher = w;
        return SBN_OK;
    }
    free_watcher(w);
    return status;
}

sbn_status sbn_watch_create(sbn_group *group, double limit_s, sbn_stall_handler handler,
                            void *context, sbn_watch **watch)
{
    SBN_CHECK(group != NULL, SBN_E_ARG, "sbn_watch_create: expected a group, got NULL");
    sbn_watch *w = NULL;
    sbn_status status =
        watch ? check(group, limit_s, handler)
              : sbni_fail(SBN_E_ARG, "sbn_watch_create: expected a place for the watch");
    if (watch) *watch = NULL;
    if (status == SBN_OK) status = sbni_alloc(1, sizeof *w, "watch", &w);
    SBN_GOTO(sbn_group_agree(group, status));
    w->rank = group->rank;
    if (group->size > 1) {
        SBN_GOTO(sbni_board_create(group, &w->board));
        SBN_GOTO(sbni_beacon_create(group, &w->board, &w->beacon));
        SBN_GOTO(sbn_group_agree(group, make_watcher(w, limit_s, handler, context)));
        w->group = group;
        group->watch = w;
    }
    *watch = w;
    return SBN_OK;
fail:
    sbn_watch_destroy(&w);
    return status;
}

void sbn_watch_destroy(sbn_watch **watch)
{
    if (!watch || !*watch) return;
    sbni_watcher *w = (*watch)->watcher;
    if (w) {
        pthread_mutex_lock(&w->lock);
        w->ends = true;
        pthread_cond_signal(&w->wake);
        pthread_mutex_unlock(&w->lock);
        pthread_join(w->thread, NULL);
        pthread_cond_destroy(&w->wake);
        pthread_mutex_destroy(&w->lock);
        free_watcher(w);
    }
    if ((*watch)->group) (*watch)->group->watch = NULL;
    sbni_beacon_destroy(&(*watch)->beacon);
    sbni_board_destroy(&(*watch)->board);
    sbni_free(*watch);
    *watch = NULL;
}

void sbn_watch_set_limit(sbn_watch *watch, double limit_s)
{
    if (!watch || !watch->watcher) return;
    sbni_watcher *w = watch->watcher;
    pthread_mutex_lock(&w->lock);
    w->limit_s = limit_s > 0 ? limit_s : 0;
    /* signs came at the pace of the limit before */
    memset(w->unheard_s, 0, (size_t)watch->board.size * sizeof *w->unheard_s);
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

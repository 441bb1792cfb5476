#define _GNU_SOURCE /* sched_getaffinity */
#include "comm/hostsum.h"

#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "comm/hostmem.h"
#include "comm/lane.h"

enum {
    LINE = 128,    /* bytes that processes do not share by accident */
    LOOKS = 300,   /* before the core is offered to others */
    PROGRESS = 16, /* looks for each call of MPI after that */
    /* Words that all processes of a sum read, from where on it is cut into pieces. */
    SHORT_WORDS = 1 << 13,
    LEAST_PIECE = 1 << 9,
    MOST_PIECE = 1 << 12,
    PIECE_BITS = 20 /* of a sum's pieces, below its number */
};
_Static_assert(INT_MAX / MOST_PIECE < 1 << PIECE_BITS, "pieces of the longest message");

/* At the head of each process's part of the memory. */
typedef struct head {
    /* of the last two sums; 0 while their words are filled */
    _Alignas(LINE) _Atomic uint64_t number[2];
} head;

/* Pieces of the sum that is added up by all, behind the parts: its number and how many
 * are taken, and done. Then come its words. */
typedef struct pieces {
    _Alignas(LINE) _Atomic uint64_t taken;
    _Alignas(LINE) _Atomic uint64_t done;
} pieces;

static int64_t round_up(int64_t bytes)
{
    return (bytes + LINE - 1) / LINE * LINE;
}

/* A process's part: head, words of two sums in turn. */
static head *head_of(const sbni_hostsum *s, int process)
{
    return (head *)((char *)s->memory + process * s->apart);
}

static uint64_t *words_of(head *h, const sbni_hostsum *s, int turn)
{
    return (uint64_t *)((char *)(h + 1) + turn * round_up(8 * s->words));
}

static pieces *pieces_of(const sbni_hostsum *s)
{
    return (pieces *)head_of(s, s->lane->group->size);
}

static uint64_t *common_words(const sbni_hostsum *s)
{
    return (uint64_t *)(pieces_of(s) + 1);
}

/* Whether the environment asks for MPI. */
static bool asks_for_mpi(void)
{
    const char *text = getenv("SBN_SUMS");
    return text && strcmp(text, "mpi") == 0;
}

sbn_status sbni_hostsum_is_wanted(sbn_group *group, bool *wanted, bool *crowded)
{
    enum { CORES = sizeof(cpu_set_t) / 8, ALL = CORES };
    /* cores that this process may run on; whether it can't or won't use memory */
    uint64_t mine[ALL + 1] = {0}, all[ALL + 1];
    MPI_Comm host;
    int here;
    SBN_TRY(sbni_mpi(MPI_Comm_split_type(group->comm, MPI_COMM_TYPE_SHARED, group->rank,
                                         MPI_INFO_NULL, &host),
                     "MPI_Comm_split_type"));
    MPI_Comm_size(host, &here);
    MPI_Comm_free(&host);
    cpu_set_t cores;
    CPU_ZERO(&cores);
    /* more than a set holds are enough for all */
    if (sched_getaffinity(0, sizeof cores, &cores) != 0) memset(&cores, -1, sizeof cores);
    memcpy(mine, &cores, sizeof cores);
    mine[ALL] = asks_for_mpi() || here < group->size;
    SBN_TRY(
        sbni_mpi(MPI_Allreduce(mine, all, ALL + 1, MPI_UINT64_T, MPI_BOR, group->comm),
                 "MPI_Allreduce"));
    memcpy(&cores, all, sizeof cores);
    *wanted = all[ALL] == 0;
    *crowded = CPU_COUNT(&cores) < group->size;
    return SBN_OK;
}

/* One for each process, but neither tiny nor beyond a cache. */
static int64_t piece_of(int64_t words, int size)
{
    if (words * size <= SHORT_WORDS) return 0;
    int64_t piece = round_up(8 * words / size + 8) / 8;
    return piece > MOST_PIECE ? MOST_PIECE : piece < LEAST_PIECE ? LEAST_PIECE : piece;
}

sbn_status sbni_hostsum_create(sbni_lane *lane, sbni_hostsum *s)
{
    int size = lane->group->size;
    *s = (sbni_hostsum){.lane = lane, .words = lane->words};
    s->piece = piece_of(s->words, size);
    s->apart = (int64_t)sizeof(head) + 2 * round_up(8 * s->words);
    SBN_TRY(sbni_call_enter(lane->group, "connecting a layer", lane->words));
    s->bytes = size * s->apart;
    if (s->piece) s->bytes += (int64_t)sizeof(pieces) + round_up(8 * s->words);
    s->memory = sbni_hostmem_map(lane->group->comm, s->bytes);
    sbni_call_goes_on(lane->group);
    return SBN_OK;
}

int64_t sbni_hostsum_bytes(const sbni_hostsum *s)
{
    int64_t size = s->lane->group->size;
    return 8 * (2 * s->words + (s->piece ? (s->words + size - 1) / size : 0));
}

void sbni_hostsum_destroy(sbni_hostsum *s)
{
    sbni_hostmem_unmap(s->memory, s->bytes);
    *s = (sbni_hostsum){0};
}

static head *mine_of(const sbni_hostsum *s)
{
    return head_of(s, s->lane->group->rank);
}

uint64_t *sbni_hostsum_words(const sbni_hostsum *s)
{
    return words_of(mine_of(s), s, s->turn);
}

uint64_t *sbni_hostsum_fill(sbni_hostsum *s)
{
    /* Others may still read what was sent last, but no longer what was sent before that:
     * this process ended the last sum, so they had begun it and ended the one before. */
    if (s->sent) s->turn ^= 1;
    s->sent = false;
    /* whoever is out of order sees that its words are gone */
    atomic_store_explicit(&mine_of(s)->number[s->turn], 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    return sbni_hostsum_words(s);
}

void sbni_hostsum_send(sbni_hostsum *s)
{
    sbni_lane *lane = s->lane;
    if (s->sent) { /* the same words once more */
        const uint64_t *words = sbni_hostsum_words(s);
        memcpy(sbni_hostsum_fill(s), words, (size_t)s->words * 8);
    }
    s->sent = true;
    s->number = ++lane->sums;
    s->come = 0;
    atomic_store_explicit(&mine_of(s)->number[s->turn], s->number, memory_order_relaxed);
    atomic_store_explicit(&lane->begun[lane->group->rank].sums, s->number,
                          memory_order_release);
}

/* Words that a process left for this sum; NULL where it is in another one, or has filled
 * them anew since: calls are out of order. */
static const uint64_t *find(const sbni_hostsum *s, int process)
{
    head *h = head_of(s, process);
    for (int turn = 0; turn < 2; turn++)
        if (atomic_load_explicit(&h->number[turn], memory_order_relaxed) == s->number)
            return words_of(h, s, turn);
    return NULL;
}

static void add(uint64_t *restrict sum, const uint64_t *restrict words, int64_t n)
{
    for (int64_t k = 0; k < n; k++) sum[k] += words[k];
}

static void add_two(uint64_t *restrict sum, const uint64_t *restrict a,
                    const uint64_t *restrict b, int64_t n)
{
    for (int64_t k = 0; k < n; k++) sum[k] = a[k] + b[k];
}

/* Whether each process's words are there, and were until now. */
static bool all_are_there(const sbni_hostsum *s)
{
    atomic_thread_fence(memory_order_acquire);
    for (int p = 0; p < s->lane->group->size; p++)
        if (!find(s, p)) return false;
    return true;
}

/* Words [from, end) of all processes. */
static void add_up(const sbni_hostsum *s, int64_t from, int64_t end, uint64_t *sum)
{
    const uint64_t *first = NULL; /* goes with the second: sum is written once less */
    for (int p = 0; p < s->lane->group->size; p++) {
        const uint64_t *words = find(s, p);
        if (!words) return; /* which is seen afterwards */
        if (p == 0)
            first = words;
        else if (p == 1)
            add_two(sum + from, first + from, words + from, end - from);
        else
            add(sum + from, words + from, end - from);
    }
}

static bool all_have_begun(sbni_hostsum *s)
{
    const sbni_lane *lane = s->lane;
    for (; s->come < lane->group->size; s->come++)
        if (atomic_load_explicit(&lane->begun[s->come].sums, memory_order_acquire) <
            s->number)
            return false;
    return true;
}

static uint64_t pieces_count(const sbni_hostsum *s)
{
    return (uint64_t)((s->words + s->piece - 1) / s->piece);
}

/* Count one more piece of this sum, from 0 where `at` is at an earlier sum, and return
 * which; -1 where all are counted. It is at no later sum: nobody begins one before all
 * have sent words for it, this process too. */
static int64_t count_piece(const sbni_hostsum *s, _Atomic uint64_t *at)
{
    const uint64_t none = s->number << PIECE_BITS, all = none + pieces_count(s);
    uint64_t now = atomic_load_explicit(at, memory_order_relaxed), next;
    do {
        next = now < none ? none : now;
        if (next >= all) return -1;
    } while (!atomic_compare_exchange_weak_explicit(
        at, &now, next + 1, memory_order_acq_rel, memory_order_relaxed));
    return (int64_t)(next - none);
}

/* Add up pieces while there are any that nobody has taken. */
static void add_pieces(const sbni_hostsum *s)
{
    pieces *of = pieces_of(s);
    for (int64_t i; (i = count_piece(s, &of->taken)) >= 0;) {
        int64_t from = i * s->piece, end = from + s->piece;
        add_up(s, from, end < s->words ? end : s->words, common_words(s));
        count_piece(s, &of->done);
    }
}

static bool all_are_done(sbni_hostsum *s)
{
    return atomic_load_explicit(&pieces_of(s)->done, memory_order_acquire) >=
           (s->number << PIECE_BITS) + pieces_count(s);
}

static void pause_core(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static void wait_until(bool (*holds)(sbni_hostsum *), sbni_hostsum *s)
{
    const sbn_group *group = s->lane->group;
    for (int64_t looks = group->crowded ? LOOKS : 0; !holds(s); looks++) {
        if (looks < LOOKS) {
            pause_core();
            continue;
        }
        int there;
        /* what else is under way may be what the others wait for */
        if (looks % PROGRESS == 0)
            MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, group->comm, &there,
                       MPI_STATUS_IGNORE);
        sched_yield();
    }
}

const uint64_t *sbni_hostsum_wait(sbni_hostsum *s, uint64_t *own)
{
    wait_until(all_have_begun, s);
    if (!all_are_there(s)) return NULL;
    if (s->piece) {
        add_pieces(s);
        wait_until(all_are_done, s);
    } else {
        add_up(s, 0, s->words, own);
    }
    if (!all_are_there(s)) return NULL;
    return s->piece ? common_words(s) : own;
}

#include "comm/reduce.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "core/clock.h"
#include "core/grid.h"
#include "core/memory.h"

enum { FINE_BIT = 32 };

sbn_status sbni_reduce_create(sbn_group *group, int64_t words, sbni_reduce *reduce)
{
    *reduce = (sbni_reduce){.group = group,
                            .words = SBNI_HEAD_WORDS + words,
                            .call = sbni_call_of("sum", "", SBNI_HEAD_WORDS + words),
                            .traffic = &group->other};
    reduce->call.call = 0;
    SBN_CHECK(reduce->words <= INT_MAX, SBN_E_ARG,
              "a message of %" PRId64 " words is longer than MPI can count",
              reduce->words);
    SBN_TRY(sbni_alloc(reduce->words, 8, "message", &reduce->send));
    sbn_status status = SBN_OK;
    reduce->own = reduce->send; /* of one process */
    if (group->size > 1) {
        status = sbni_alloc(reduce->words, 8, "message", &reduce->own);
        if (status == SBN_OK)
            status = sbni_alloc(1, sizeof *reduce->spare, "message", &reduce->spare);
    }
    if (status != SBN_OK) sbni_reduce_destroy(reduce);
    return status;
}

sbn_status sbni_reduce_label(sbni_reduce *reduce, const char *name, const char *phase)
{
    reduce->call = sbni_call_of(name, phase, reduce->words);
    reduce->call.call = 0;
    return sbni_traffic_row(reduce->group, name, phase, &reduce->traffic);
}

static bool through_memory(const sbni_reduce *reduce)
{
    return reduce->host.memory != NULL;
}

/* The words as they are, where the others see them. */
static void move(sbni_reduce *reduce)
{
    uint64_t *send = sbni_hostsum_fill(&reduce->host);
    memcpy(send, reduce->send, (size_t)reduce->words * 8);
    sbni_free(reduce->send);
    reduce->send = send;
    if (!reduce->host.piece) return;
    sbni_free(reduce->own);
    reduce->own = NULL;
}

sbn_status sbni_reduce_connect(sbni_reduce *reduce)
{
    sbni_lane *lane, *spare = reduce->spare;
    if (reduce->lane || reduce->group->size == 1) return SBN_OK;
    SBN_CHECK(spare, SBN_E_STATE, "a message could not be connected before");
    reduce->spare = NULL;
    SBN_TRY(sbni_lane_join(reduce->group, reduce->words, spare, &lane));
    if (lane->begun) SBN_TRY(sbni_hostsum_create(lane, &reduce->host));
    if (through_memory(reduce))
        move(reduce);
    else
        SBN_TRY(sbni_lane_dup(lane));
    reduce->lane = lane;
    return SBN_OK;
}

int64_t sbni_reduce_bytes(const sbni_reduce *reduce)
{
    int64_t one = 8 * reduce->words;
    if (through_memory(reduce))
        return sbni_hostsum_bytes(&reduce->host) + (reduce->own ? one : 0);
    return reduce->own == reduce->send ? one : 2 * one;
}

/* Out of the group's list. */
static void take_out(sbni_reduce *reduce)
{
    sbni_reduce **at = &reduce->group->outstanding;
    while (*at && *at != reduce) at = &(*at)->next;
    if (*at) *at = reduce->next;
    reduce->outstanding = false;
}

static sbn_status wait_for_mpi(sbni_reduce *reduce)
{
    reduce->sum = reduce->own;
    int code = MPI_Wait(&reduce->request, MPI_STATUS_IGNORE);
    return sbni_mpi(reduce->poked == MPI_SUCCESS ? code : reduce->poked, "MPI_Wait");
}

/* Until sum is complete. */
static sbn_status wait_for(sbni_reduce *reduce)
{
    if (!through_memory(reduce)) return wait_for_mpi(reduce);
    reduce->sum = sbni_hostsum_wait(&reduce->host, reduce->own);
    return SBN_OK;
}

void sbni_reduce_destroy(sbni_reduce *reduce)
{
    bool outstanding = reduce->outstanding;
    if (outstanding) take_out(reduce);
    if (through_memory(reduce)) {
        sbni_hostsum_destroy(&reduce->host); /* the others have the words */
    } else {
        if (outstanding) {
            sbni_call_waits(reduce->group, &reduce->call);
            wait_for_mpi(reduce);
            sbni_call_goes_on(reduce->group);
        }
        if (reduce->own != reduce->send) sbni_free(reduce->send);
    }
    sbni_free(reduce->own);
    sbni_free(reduce->spare);
    *reduce = (sbni_reduce){0};
}

void sbni_reduce_open(sbni_reduce *reduce, uint32_t tag)
{
    if (through_memory(reduce)) reduce->send = sbni_hostsum_fill(&reduce->host);
    memset(reduce->send, 0, SBNI_HEAD_WORDS * sizeof *reduce->send);
    reduce->send[SBNI_HEAD_TAG] = tag;
    reduce->sum = reduce->group->size == 1 ? reduce->send : NULL;
    reduce->fine = false;
}

void sbni_reduce_clear(sbni_reduce *reduce, uint32_t tag)
{
    sbni_reduce_open(reduce, tag);
    memset(reduce->send + SBNI_HEAD_WORDS, 0,
           (size_t)(reduce->words - SBNI_HEAD_WORDS) * 8);
}

void sbni_reduce_note(sbni_reduce *reduce, int flags)
{
    if (flags & SBNI_GRID_NONFINITE) reduce->send[SBNI_HEAD_NONFINITE] = 1;
    /* once for each, however many conversions there were */
    uint64_t *large = &reduce->send[SBNI_HEAD_LARGE];
    if (flags & SBNI_GRID_TOO_LARGE) *large |= 1;
    if (flags & SBNI_GRID_TOO_FINE) *large |= UINT64_C(1) << FINE_BIT;
}

static sbn_status come(sbni_reduce *reduce)
{
    reduce->call.call++;
    return sbni_call_comes(reduce->group, &reduce->call);
}

static sbn_status send(sbni_reduce *reduce)
{
    reduce->sum = NULL;
    if (!through_memory(reduce))
        return sbni_mpi(MPI_Iallreduce(reduce->send, reduce->own, (int)reduce->words,
                                       MPI_INT64_T, MPI_SUM, reduce->lane->comm,
                                       &reduce->request),
                        "MPI_Iallreduce");
    sbni_hostsum_send(&reduce->host);
    reduce->send = sbni_hostsum_words(&reduce->host);
    return SBN_OK;
}

sbn_status sbni_reduce_begin(sbni_reduce *reduce)
{
    if (reduce->group->size == 1) return sbni_reduce_run(reduce);
    double began_s = sbni_clock_s();
    SBN_TRY(come(reduce));
    SBN_TRY(send(reduce));
    reduce->outstanding = true;
    sbni_traffic_count(reduce->traffic, 8 * reduce->words);
    reduce->traffic->sums.begin_s += sbni_clock_s() - began_s;
    reduce->poked = MPI_SUCCESS;
    reduce->next = reduce->group->outstanding;
    reduce->group->outstanding = reduce;
    return SBN_OK;
}

void sbni_reduce_poke(sbn_group *group)
{
    for (sbni_reduce *r = group->outstanding; r; r = r->next) {
        if (through_memory(r) || r->request == MPI_REQUEST_NULL) continue;
        int done = 0;
        double began_s = sbni_clock_s();
        int code = MPI_Test(&r->request, &done, MPI_STATUS_IGNORE);
        r->traffic->sums.begin_s += sbni_clock_s() - began_s;
        if (code != MPI_SUCCESS) r->poked = code;
        /* a call that has to wait has moved the others too */
        if (!done) return;
    }
}

sbn_status sbni_reduce_end(sbni_reduce *reduce)
{
    if (!reduce->outstanding) return SBN_OK;
    take_out(reduce);
    double began_s = sbni_clock_s();
    sbni_call_waits(reduce->group, &reduce->call);
    sbn_status status = wait_for(reduce);
    sbni_call_goes_on(reduce->group);
    reduce->traffic->sums.wait_s += sbni_clock_s() - began_s;
    return status;
}

static sbn_status send_and_wait(sbni_reduce *reduce)
{
    if (!through_memory(reduce)) {
        reduce->sum = reduce->own;
        return sbni_mpi(MPI_Allreduce(reduce->send, reduce->own, (int)reduce->words,
                                      MPI_INT64_T, MPI_SUM, reduce->lane->comm),
                        "MPI_Allreduce");
    }
    SBN_TRY(send(reduce));
    return wait_for(reduce);
}

sbn_status sbni_reduce_run(sbni_reduce *reduce)
{
    if (reduce->group->size == 1) return SBN_OK;
    double began_s = sbni_clock_s();
    SBN_TRY(come(reduce));
    sbni_call_waits(reduce->group, &reduce->call);
    sbn_status status = send_and_wait(reduce);
    sbni_call_goes_on(reduce->group);
    SBN_TRY(status);
    sbni_traffic_count(reduce->traffic, 8 * reduce->words);
    reduce->traffic->sums.wait_s += sbni_clock_s() - began_s;
    return SBN_OK;
}

/* What the sums of a phase are made of, and from where on that is too large. */
typedef struct summed {
    const char *phase, *what, *limit;
} summed;

static const summed *find_summed(const char *phase)
{
    static const summed all[] = {
        {"backward", "the gradient of its output", "a sum of 1e18"},
        {"second", "what its gradients are multiplied with", "a sum of 1e18"},
        {NULL, "its input", "1e13"},
    };
    const summed *s = all;
    while (s->phase && strcmp(s->phase, phase) != 0) s++;
    return s;
}

/* This process's status, with what its header noted. */
static sbn_status own_status(const sbni_reduce *reduce, sbn_status mine, const char *what)
{
    SBN_TRY(mine);
    if (reduce->send[SBNI_HEAD_NONFINITE] && reduce->blame)
        SBN_TRY(reduce->blame(reduce->owner));
    const summed *s = find_summed(reduce->traffic->sums.phase);
    SBN_CHECK(!reduce->send[SBNI_HEAD_NONFINITE], SBN_E_NONFINITE,
              "%s: NaN or infinity in %s", what, s->what);
    SBN_CHECK(!(uint32_t)reduce->send[SBNI_HEAD_LARGE], SBN_E_RANGE,
              "%s: a value too large for the exact sums (about %s) in %s", what, s->limit,
              s->what);
    return SBN_OK;
}

sbn_status sbni_reduce_verdict(sbni_reduce *reduce, sbn_status mine, const char *what)
{
    const uint64_t *sum = reduce->sum, *send = reduce->send;
    uint64_t agreed = send[SBNI_HEAD_TAG] * (uint64_t)reduce->group->size;
    if (!sum || sum[SBNI_HEAD_TAG] != agreed)
        return sbni_fail(
            SBN_E_MISMATCH,
            "%s: expected all processes in this call, with the same layer, phase, number "
            "of calls, and for renorm limits and running statistics; got the processes "
            "in different ones (SBN_CHECK_COLLECTIVES=1 tells who is where)",
            what);
    if (!(sum[SBNI_HEAD_FAILED] | sum[SBNI_HEAD_NONFINITE] |
          (uint32_t)sum[SBNI_HEAD_LARGE])) {
        reduce->fine = sum[SBNI_HEAD_LARGE] >> FINE_BIT != 0;
        return mine;
    }
    return sbn_group_agree(reduce->group, own_status(reduce, mine, what));
}

sbn_status sbni_reduce_alone(sbni_reduce *reduce, sbn_status mine, const char *what)
{
    reduce->sum = reduce->send;
    reduce->fine = reduce->send[SBNI_HEAD_LARGE] >> FINE_BIT != 0;
    return own_status(reduce, mine, what);
}

#include "comm/call.h"

#include <stdio.h>
#include <string.h>

#include "comm/board.h"
#include "comm/lockstep.h"
#include "comm/watch.h"

_Static_assert(SBNI_CALL_TEXT == 8 * SBNI_SEAT_WORDS, "a text is stored word by word");

sbni_call sbni_call_of(const char *name, const char *phase, int64_t words)
{
    sbni_call call = {.call = 1, .words = words};
    snprintf(call.text, sizeof call.text, "%s%s%s", name, *phase ? " " : "", phase);
    /* nothing of a longer text behind its end */
    size_t length = strlen(call.text);
    memset(call.text + length, 0, sizeof call.text - length);
    return call;
}

uint64_t sbni_call_digest(const sbni_call *call)
{
    const uint64_t factor = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t word, h = (uint64_t)call->call * factor + (uint64_t)call->words;
    h = h * factor + (uint64_t)call->layer;
    for (int i = 0; i < SBNI_SEAT_WORDS; i++) {
        memcpy(&word, call->text + 8 * i, 8);
        h = (h ^ word) * UINT64_C(0xff51afd7ed558ccd);
        h ^= h >> 29;
    }
    return h;
}

static void put(_Atomic uint64_t *at, uint64_t value)
{
    atomic_store_explicit(at, value, memory_order_relaxed);
}

static void tell(sbni_seat *seat, const sbni_call *call)
{
    uint64_t word;
    put(&seat->told, call->number);
    atomic_store_explicit(&seat->call, call->call, memory_order_relaxed);
    for (int i = 0; i < SBNI_SEAT_WORDS; i++) {
        memcpy(&word, call->text + 8 * i, 8);
        put(&seat->text[i], word);
    }
}

static void come(sbn_watch *watch, sbni_call *call)
{
    sbni_seat *seat = sbni_watch_seat(watch);
    call->number = atomic_load_explicit(&seat->arrived, memory_order_relaxed) + 1;
    tell(seat, call);
    put(&seat->past[call->number % SBNI_SEAT_PAST], sbni_call_digest(call));
    atomic_store_explicit(&seat->arrived, call->number, memory_order_release);
}

static void wait_for(sbn_watch *watch, const sbni_call *call)
{
    sbni_seat *seat = sbni_watch_seat(watch);
    if (atomic_load_explicit(&seat->told, memory_order_relaxed) != call->number)
        tell(seat, call);
    atomic_store_explicit(&seat->waits, call->number, memory_order_release);
}

static void enter(sbn_watch *watch, sbni_call *call)
{
    call->call = ++watch->entered;
    come(watch, call);
    wait_for(watch, call);
}

static void go_on(sbn_watch *watch)
{
    /* has_time stays: numbers are used once, and the watch reads `waits` before it */
    atomic_store_explicit(&sbni_watch_seat(watch)->waits, 0, memory_order_release);
}

sbn_status sbni_call_comes(sbn_group *group, sbni_call *call)
{
    if (group->watch) come(group->watch, call);
    if (!group->checks && !group->broken) return SBN_OK;
    sbni_call_waits(group, call);
    sbn_status status = sbni_lockstep(group, call);
    sbni_call_goes_on(group);
    return status;
}

void sbni_call_waits(sbn_group *group, const sbni_call *call)
{
    if (group->watch) wait_for(group->watch, call);
}

void sbni_call_goes_on(sbn_group *group)
{
    if (group->watch) go_on(group->watch);
}

static sbn_status enter_call(sbn_group *group, sbni_call *call, bool has_time)
{
    if (group->watch) {
        enter(group->watch, call);
        if (has_time) put(&sbni_watch_seat(group->watch)->has_time, call->number);
    }
    sbn_status status = sbni_lockstep(group, call);
    if (status != SBN_OK) sbni_call_goes_on(group);
    return status;
}

sbn_status sbni_call_enter(sbn_group *group, const char *text, int64_t words)
{
    if (!group->watch && !group->checks && !group->broken) return SBN_OK;
    sbni_call call = sbni_call_of(text, "", words);
    return enter_call(group, &call, false);
}

sbn_status sbni_call_enter_long(sbn_group *group, const char *text)
{
    if (!group->watch && !group->checks && !group->broken) return SBN_OK;
    sbni_call call = sbni_call_of(text, "", 0);
    return enter_call(group, &call, true);
}

void sbni_call_step(sbn_group *group, int64_t step)
{
    if (group->watch) sbn_watch_set_step(group->watch, step);
}

void sbn_watch_set_step(sbn_watch *watch, int64_t step)
{
    if (watch && watch->watcher)
        atomic_store_explicit(&sbni_watch_seat(watch)->step, step, memory_order_relaxed);
}

void sbn_watch_enter(sbn_watch *watch, const char *what)
{
    sbni_call call = sbni_call_of(what, "", 0);
    if (watch && watch->watcher) enter(watch, &call);
}

void sbn_watch_leave(sbn_watch *watch)
{
    if (watch && watch->watcher) go_on(watch);
}

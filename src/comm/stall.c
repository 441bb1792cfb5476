#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "comm/watch.h"
#include "core/text.h"

/* So many missing processes are told of in detail. */
enum { DETAILS = 3 };

static uint64_t get(const _Atomic uint64_t *at)
{
    return atomic_load_explicit(at, memory_order_acquire);
}

static void read_text(const sbni_seat *seat, char *text)
{
    for (int i = 0; i < SBNI_SEAT_WORDS; i++) {
        uint64_t word = get(&seat->text[i]);
        memcpy(text + 8 * i, &word, 8);
    }
    text[SBNI_CALL_TEXT - 1] = 0;
}

static int64_t call_of(const sbni_seat *seat)
{
    return atomic_load_explicit(&seat->call, memory_order_relaxed);
}

sbni_absence sbni_stall_absence(const sbni_board *b, int i, uint64_t number, bool quiet)
{
    const sbni_seat *seat = &b->seats[i];
    uint64_t arrived = get(&seat->arrived);
    int at = (int)(number % SBNI_SEAT_PAST);
    if (seat == b->mine) return SBNI_THERE;
    if (arrived < number) return SBNI_NOT_COME;
    if (arrived - number < SBNI_SEAT_PAST &&
        get(&seat->past[at]) != get(&b->mine->past[at]))
        return SBNI_ELSEWHERE; /* at its call of that number, which is another */
    return quiet ? SBNI_STOPPED : SBNI_THERE;
}

bool sbni_stall_misses(const sbni_board *b, int i, uint64_t number, bool quiet)
{
    sbni_absence absence = sbni_stall_absence(b, i, number, quiet);
    bool in_turn = absence == SBNI_NOT_COME && !quiet && get(&b->seats[i].waits) > 0;
    return absence != SBNI_THERE && !in_turn;
}

/* What is known of a process that is not there. */
static void add_process(sbni_text *w, const sbni_board *b, int i, sbni_absence absence,
                        bool quiet)
{
    const sbni_seat *seat = &b->seats[i];
    char text[SBNI_CALL_TEXT];
    read_text(seat, text);
    sbni_text_add(w, "process %d, ", b->ranks[i]);
    if (absence == SBNI_STOPPED)
        sbni_text_add(w, "which came and is stopped or gone since");
    else if (get(&seat->arrived) == 0)
        sbni_text_add(w, quiet ? "stopped or gone" : "in no collective so far");
    else
        sbni_text_add(w, "%s %s (call %" PRId64 ")",
                      quiet               ? "stopped or gone, last in"
                      : get(&seat->waits) ? "which waits in"
                                          : "at work since",
                      text, call_of(seat));
}

/* Host by host, who is not on this one; of those that are lost alone, if given. */
static void add_elsewhere(sbni_text *w, const sbni_board *b, const uint8_t *lost)
{
    uint8_t in[b->size];
    char list[160];
    int mine = b->leader[b->ranks[0]];
    const char *before = "";
    for (int first = 0; first < b->size && w->at + sizeof list < w->bytes; first++) {
        if (b->leader[first] != first || first == mine || (lost && !lost[first]))
            continue;
        for (int r = 0; r < b->size; r++) in[r] = b->leader[r] == first;
        sbni_text_processes(in, b->size, list, sizeof list);
        sbni_text_add(w, "%s%s on %s", before, list, b->hosts[first]);
        before = "; ";
    }
}

/* Those last who wait in turn. */
static void add_here(sbni_text *w, const sbni_board *b, const uint8_t *quiet,
                     uint64_t number, int absent)
{
    int told = 0, most = absent <= DETAILS ? absent : DETAILS - 1;
    for (int k = 0; k < 2 * b->here && told < most; k++) {
        int i = k % b->here;
        sbni_absence absence = sbni_stall_absence(b, i, number, quiet[i]);
        bool misses = sbni_stall_misses(b, i, number, quiet[i]);
        if (absence == SBNI_THERE || (k < b->here) != misses) continue;
        sbni_text_add(w, "%s", told++ ? "; " : "");
        add_process(w, b, i, absence, quiet[i]);
    }
    if (absent > told) sbni_text_add(w, "; and %d more of this host", absent - told);
}

bool sbni_any(const uint8_t *of, int n)
{
    for (int i = 0; i < n; i++)
        if (of[i]) return true;
    return false;
}

void sbni_stall_tell(const sbni_board *b, int rank, const uint8_t *quiet,
                     const uint8_t *lost, double waited_s, char *what, char *text,
                     sbn_stall *stall)
{
    sbni_text w = {text, 0, SBNI_STALL_TEXT};
    uint64_t number = get(&b->mine->waits);
    int absent = 0;
    for (int i = 0; i < b->here; i++)
        absent += sbni_stall_absence(b, i, number, quiet[i]) != SBNI_THERE;
    read_text(b->mine, what);
    *stall =
        (sbn_stall){.what = what,
                    .call = call_of(b->mine),
                    .step = atomic_load_explicit(&b->mine->step, memory_order_relaxed),
                    .waited_s = waited_s,
                    .text = text};
    sbni_text_add(&w, "%s (call %" PRId64, what, stall->call);
    if (stall->step > 0) sbni_text_add(&w, ", step %" PRId64, stall->step);
    sbni_text_add(&w, "): process %d has waited %.1f s for ", rank, waited_s);
    bool known = sbni_any(lost, b->size);
    if (known) {
        sbni_text_add(&w, "a sign of life from: ");
        add_elsewhere(&w, b, lost);
        if (absent) sbni_text_add(&w, "; and for ");
    }
    if (absent) add_here(&w, b, quiet, number, absent);
    if (known) return;
    if (b->here == b->size) {
        if (!absent) sbni_text_add(&w, "a message; all processes came");
        return;
    }
    sbni_text_add(&w, absent ? "; not known of " : "some of: ");
    add_elsewhere(&w, b, NULL);
    if (!absent) sbni_text_add(&w, "; all %d of %s came", b->here, b->hosts[rank]);
}

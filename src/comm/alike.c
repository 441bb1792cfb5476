#include "comm/alike.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/memory.h"
#include "core/text.h"

enum { VALUE_BYTES = 256, SHOWN_BYTES = 100, MOST_VALUES = 3, RANKS_BYTES = 64 };

/* Every process's value. */
static sbn_status gather(sbn_group *group, uint64_t value, int64_t **all)
{
    SBN_TRY(sbn_group_agree(group, sbni_alloc(group->size, 8, "comparison", all)));
    return sbni_group_gather(group, (int64_t)value, *all);
}

/* Whether process r has a value that none before it has. */
static bool is_new(const int64_t *all, int r)
{
    for (int q = 0; q < r; q++)
        if (all[q] == all[r]) return false;
    return true;
}

/* The value of process r, and all that share it. */
static sbn_status add(sbn_group *group, const int64_t *all, int r, const char *text,
                      char *list, int64_t bytes)
{
    char value[VALUE_BYTES] = "", ranks[RANKS_BYTES];
    uint8_t in[group->size];
    size_t at = strlen(list);
    if (group->rank == r) snprintf(value, sizeof value, "%s", text);
    SBN_TRY(sbni_group_broadcast(group, value, sizeof value, r));
    for (int q = 0; q < group->size; q++) in[q] = all[q] == all[r];
    sbni_text_processes(in, group->size, ranks, sizeof ranks);
    snprintf(list + at, (size_t)bytes - at, "%s%.*s on %s", at ? ", " : "", SHOWN_BYTES,
             value, ranks);
    return SBN_OK;
}

sbn_status sbni_alike_tell(sbn_group *group, uint64_t value, const char *text, char *list,
                           int64_t bytes)
{
    int64_t *all = NULL;
    *list = 0;
    sbn_status status = gather(group, value, &all);
    for (int r = 0, told = 0; status == SBN_OK && r < group->size; r++) {
        if (!is_new(all, r)) continue;
        if (told++ == MOST_VALUES) {
            size_t at = strlen(list);
            snprintf(list + at, (size_t)bytes - at, ", …");
            break;
        }
        status = add(group, all, r, text, list, bytes);
    }
    sbni_free(all);
    return status;
}

static uint64_t digest(const sbni_named *item, uint64_t seed)
{
    seed = XXH3_64bits_withSeed(item->key, strlen(item->key) + 1, seed);
    return XXH3_64bits_withSeed(item->value, strlen(item->value) + 1, seed);
}

/* Whether a number differs anywhere. */
static sbn_status differs(sbn_group *group, uint64_t value, bool *yes)
{
    int64_t least, greatest;
    SBN_TRY(sbni_group_range(group, (int64_t)value, &least, &greatest));
    *yes = least != greatest;
    return SBN_OK;
}

/* The first item that differs; lists may also be of different lengths. */
static sbn_status find(sbn_group *group, const sbni_named *list, int n, int *which)
{
    bool found = false;
    for (*which = 0;; ++*which) {
        uint64_t mine = *which < n ? digest(&list[*which], 0) : 0;
        SBN_TRY(differs(group, mine, &found));
        if (found) return SBN_OK;
    }
}

sbn_status sbni_alike(sbn_group *group, const char *prefix, const sbni_named *list, int n)
{
    static const sbni_named nothing = {"one more", "nothing"};
    uint64_t all = (uint64_t)n;
    bool different;
    int i;
    char key[64], values[3 * SHOWN_BYTES + 3 * RANKS_BYTES];
    for (i = 0; i < n; i++) all = digest(&list[i], all);
    SBN_TRY(differs(group, all, &different));
    if (!different) return SBN_OK;
    SBN_TRY(find(group, list, n, &i));
    const sbni_named *mine = i < n ? &list[i] : &nothing;
    snprintf(key, sizeof key, "%s%s", prefix, mine->key);
    SBN_TRY(sbni_group_broadcast(group, key, sizeof key, 0));
    SBN_TRY(sbni_alike_tell(group, digest(mine, 0), mine->value, values, sizeof values));
    return sbni_fail(SBN_E_MISMATCH,
                     "%s: expected the same on all processes, got %s; start them alike",
                     key, values);
}

sbn_status sbni_compare_text(sbn_group *group, const char *what, const char *text)
{
    return sbni_alike(group, "", &(sbni_named){what, text}, 1);
}

sbn_status sbni_group_check_same(sbn_group *group, int64_t value, const char *what)
{
    char text[32], values[256];
    bool different;
    SBN_TRY(differs(group, (uint64_t)value, &different));
    if (!different) return SBN_OK;
    snprintf(text, sizeof text, "%" PRId64, value);
    SBN_TRY(sbni_alike_tell(group, (uint64_t)value, text, values, sizeof values));
    return sbni_fail(SBN_E_MISMATCH,
                     "%s differs between processes: expected one value, got %s", what,
                     values);
}

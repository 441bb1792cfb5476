#include "train/digests.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/memory.h"

enum { DIGITS = 16 };

static uint64_t hash_text(const char *text, uint64_t seed)
{
    return XXH3_64bits_withSeed(text, strlen(text), seed);
}

/* Added up over the pairs, so that their order does not matter: others' writers may sort
 * them. */
static void add_pair(void *sum, const char *key, const char *value)
{
    if (strcmp(key, SBNI_DIGESTS_KEY) != 0)
        *(uint64_t *)sum += hash_text(value, hash_text(key, 0));
}

static uint64_t add_tensor(uint64_t sum, const sbni_st_tensor *t)
{
    sum = hash_text(t->dtype, hash_text(t->name, sum));
    return XXH3_64bits_withSeed(t->shape, (size_t)t->axes * sizeof *t->shape, sum);
}

static uint64_t hash_data(const sbni_st_tensor *t)
{
    return XXH3_64bits(t->bytes ? t->data : "", (size_t)t->bytes);
}

static void put(char *text, int place, uint64_t digest)
{
    char digits[DIGITS + 1];
    snprintf(digits, sizeof digits, "%016" PRIx64, digest);
    memcpy(text + place * DIGITS, digits, DIGITS);
}

static bool has(const char *text, int place, uint64_t digest)
{
    char digits[DIGITS + 1];
    snprintf(digits, sizeof digits, "%016" PRIx64, digest);
    return memcmp(text + place * DIGITS, digits, DIGITS) == 0;
}

sbn_status sbni_digests_make(const sbni_st_tensor *tensors, int n,
                             const char *const (*metadata)[2], int n_metadata,
                             char **text)
{
    SBN_TRY(sbni_alloc((int64_t)DIGITS * (n + 1) + 1, 1, "digests", text));
    uint64_t header = 0;
    for (int i = 0; i < n_metadata; i++)
        add_pair(&header, metadata[i][0], metadata[i][1]);
    for (int i = 0; i < n; i++) {
        header = add_tensor(header, &tensors[i]);
        put(*text, i + 1, hash_data(&tensors[i]));
    }
    put(*text, 0, header);
    return SBN_OK;
}

sbn_status sbni_digests_check(const char *path, const sbni_st_file *file, bool required)
{
    const char *text = sbni_st_metadata(file, SBNI_DIGESTS_KEY);
    if (!text && !required) return SBN_OK;
    int n = sbni_st_count(file);
    SBN_CHECK(text && strlen(text) == (size_t)DIGITS * ((size_t)n + 1), SBN_E_DATA,
              "%s is damaged: it has no digests of its %d tensors", path, n);
    uint64_t header = 0;
    sbni_st_visit_metadata(file, add_pair, &header);
    for (int i = 0; i < n; i++) header = add_tensor(header, sbni_st_at(file, i));
    SBN_CHECK(has(text, 0, header), SBN_E_DATA,
              "%s is damaged: its header differs from its digest", path);
    for (int i = 0; i < n; i++) {
        const sbni_st_tensor *t = sbni_st_at(file, i);
        SBN_CHECK(has(text, i + 1, hash_data(t)), SBN_E_DATA,
                  "%s is damaged: tensor %.80s differs from its digest", path, t->name);
    }
    return SBN_OK;
}

#include "train/checkpoint.h"
#include "support/harness.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "core/rng.h"
#include "support/saved.h"

/* Whatever happens to the bytes of a checkpoint, it is loaded as it was or not at all. */

static uint64_t draws;

static uint32_t draw(uint32_t below)
{
    uint32_t words[4];
    sbni_rng_words((sbni_rng_key){71, SBNI_RNG_TEST, 0}, draws++, 0, words);
    return words[0] % below;
}

static void save(const char *name, int64_t step)
{
    saved_set((double)step);
    OK(sbni_checkpoint_save(saved_path(name), NULL, saved_model, saved_optimizer, step,
                            saved_settings, SAVED_SETTINGS));
}

static sbn_status load(const char *path, int64_t *step)
{
    saved_set(-5);
    *step = -1;
    return sbni_checkpoint_load(path, saved_model, saved_optimizer, step, saved_settings,
                                SAVED_SETTINGS);
}

/* These bytes are refused in one line that names the file, and change nothing; unless
 * they say the same as those of step 7, in another way. */
static bool is_refused(const char *bytes, int64_t n, const char *what)
{
    const char *path = saved_path("changed.safetensors");
    saved_write(path, bytes, n);
    int64_t step;
    sbn_status status = load(path, &step);
    if (status == SBN_OK) {
        if (step != 7 || !saved_are(7)) fail_msg("%s: loaded, but not as it was", what);
        return false;
    }
    if (status != SBN_E_DATA) fail_msg("%s: %s", what, sbn_last_error());
    assert_non_null(strstr(sbn_last_error(), path));
    assert_int_equal(step, -1);
    assert_true(saved_are(-5));
    return true;
}

static char original[SAVED_ROOM], changed[SAVED_ROOM];
static int64_t original_bytes, header_bytes;

static void loads_what_was_saved(void **state)
{
    (void)state;
    int64_t step;
    save("good.safetensors", 7);
    OK(load(saved_path("good.safetensors"), &step));
    assert_int_equal(step, 7);
    assert_true(saved_are(7));
    original_bytes = saved_read(saved_path("good.safetensors"), original);
    for (int i = 0; i < 8; i++)
        header_bytes |= (int64_t)(unsigned char)original[i] << 8 * i;
    header_bytes += 8;
    assert_in_range(header_bytes, 100, original_bytes - 1);
    save("again.safetensors", 7);
    assert_int_equal(saved_read(saved_path("again.safetensors"), changed),
                     original_bytes);
    assert_memory_equal(changed, original, (size_t)original_bytes);
}

static void truncated(void **state)
{
    (void)state;
    for (int k = 0; k < 16; k++) {
        int64_t n = original_bytes * k / 16;
        for (int64_t less = 0; less <= 2 && less <= n; less++)
            assert_true(is_refused(original, n - less, "truncated"));
    }
    assert_true(is_refused(original, original_bytes - 1, "truncated"));
    assert_true(is_refused(original, header_bytes, "header alone"));
    memcpy(changed, original, (size_t)original_bytes);
    changed[original_bytes] = 0;
    assert_true(is_refused(changed, original_bytes + 1, "a byte more"));
}

/* Every single bit of the header and of its length; some of the data. */
static void flipped_bits(void **state)
{
    (void)state;
    char what[64];
    for (int64_t bit = 0; bit < 8 * header_bytes + 4000; bit++) {
        int64_t at = bit < 8 * header_bytes
                         ? bit / 8
                         : header_bytes + draw((uint32_t)(original_bytes - header_bytes));
        memcpy(changed, original, (size_t)original_bytes);
        changed[at] = (char)(changed[at] ^ 1 << bit % 8);
        snprintf(what, sizeof what, "bit %d of byte %" PRId64, (int)(bit % 8), at);
        if (!is_refused(changed, original_bytes, what)) fail_msg("%s passed", what);
    }
}

/* Bytes of `changed` become others: inserted, removed, overwritten, copied from
 * elsewhere.
 */
static int64_t mutate_header(int64_t n)
{
    int64_t at = draw((uint32_t)header_bytes), from = draw((uint32_t)header_bytes),
            length = 1 + draw(40);
    static const char *const words[] = {
        "\"",        "}",    "{",       "]",    ",",   ":",       "-1",
        "1e999",     "null", "[]",      "true", "\\u", "\\u0000", "9223372036854775807",
        "\"xxh3\":", " ",    "\"F64\"", "[0,0]"};
    const char *word = words[draw(sizeof words / sizeof *words)];
    switch (draw(5)) {
    case 0:
        changed[at] = (char)draw(256);
        return n;
    case 1:
        memmove(changed + at + strlen(word), changed + at, (size_t)(n - at));
        memcpy(changed + at, word, strlen(word));
        return n + (int64_t)strlen(word);
    case 2:
        if (at + length > n) length = n - at;
        memmove(changed + at, changed + at + length, (size_t)(n - at - length));
        return n - length;
    case 3:
        if (at + length > header_bytes) length = header_bytes - at;
        if (from + length > header_bytes) length = header_bytes - from;
        memmove(changed + at, changed + from, (size_t)length);
        return n;
    default:
        memcpy(changed + at, word, strlen(word));
        return n;
    }
}

/* Half of them keep the length of the header true to what it became. */
static void mutated_headers(void **state)
{
    (void)state;
    int refused = 0;
    char what[64];
    for (int k = 0; k < 4000; k++) {
        int64_t n = original_bytes;
        memcpy(changed, original, (size_t)n);
        for (uint32_t times = 1 + draw(3); times > 0; times--) n = mutate_header(n);
        if (k % 2) {
            int64_t length = header_bytes - 8 + n - original_bytes;
            for (int i = 0; i < 8; i++) changed[i] = (char)(length >> 8 * i & 255);
        }
        snprintf(what, sizeof what, "mutated header %d", k);
        refused += is_refused(changed, n, what);
    }
    assert_in_range(refused, 3600, 4000);
}

static void random_bytes(void **state)
{
    (void)state;
    for (int k = 0; k < 300; k++) {
        int64_t n = draw(k < 100 ? 64 : 3000);
        for (int64_t i = 0; i < n; i++) changed[i] = (char)draw(256);
        /* some with a length that the file has, and a brace to begin with */
        if (k % 3 == 0 && n > 9) {
            memset(changed, 0, 8);
            changed[0] = (char)draw((uint32_t)(n < 128 ? n - 8 : 120));
            changed[8] = '{';
        }
        assert_true(is_refused(changed, n, "random bytes"));
    }
}

/* Digests of the tensors, and what they are for: a byte of each is changed. */
static void names_what_is_damaged(void **state)
{
    (void)state;
    struct {
        int64_t from_end;
        const char *tensor;
    } cases[] = {{1, "optimizer.velocity.d.bias"},
                 {4 * 4 + 1, "optimizer.velocity.d.weight"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memcpy(changed, original, (size_t)original_bytes);
        changed[original_bytes - cases[i].from_end] ^= 16;
        assert_true(is_refused(changed, original_bytes, "damaged"));
        assert_non_null(strstr(sbn_last_error(), cases[i].tensor));
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup(loads_what_was_saved, saved_make),
    cmocka_unit_test(truncated),
    cmocka_unit_test(flipped_bits),
    cmocka_unit_test(mutated_headers),
    cmocka_unit_test(random_bytes),
    cmocka_unit_test_teardown(names_what_is_damaged, saved_destroy),
};
TEST_MAIN(tests)

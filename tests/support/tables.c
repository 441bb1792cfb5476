#include "support/tables.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "support/harness.h"
#include "support/element.h"

enum { GUARD = 16 };
static const unsigned char guard_byte = 0xa5;

static struct {
    unsigned char *bytes;
    size_t used, room;
    uint64_t digest; /* FNV-1a, without what libm had a part in */
    bool nothing;
} noted;

int64_t bytes_of(sbn_dtype t, int64_t n)
{
    return n * sbn_dtype_bytes(t);
}

double as(sbn_dtype t, double v)
{
    return t == SBN_F32 ? (double)(float)v : v;
}

void record_libm(const void *output, int64_t bytes)
{
    if (noted.used + (size_t)bytes > noted.room) {
        noted.room = 2 * noted.room + (size_t)bytes;
        noted.bytes = realloc(noted.bytes, noted.room);
        assert_non_null(noted.bytes);
    }
    memcpy(noted.bytes + noted.used, output, (size_t)bytes);
    noted.used += (size_t)bytes;
}

void record(const void *output, int64_t bytes)
{
    record_libm(output, bytes);
    const unsigned char *b = output;
    for (int64_t i = 0; i < bytes; i++)
        noted.digest = (noted.digest ^ b[i]) * UINT64_C(0x100000001b3);
}

void record_nothing(void)
{
    noted.nothing = true;
}

static void print_digest(const char *walk, int type)
{
    const char *path = getenv("SBN_TEST_DIGESTS");
    if (!path) return;
    FILE *f = fopen(path, "a");
    assert_non_null(f);
    fprintf(f, "%s, type %d: %zu bytes, %016" PRIx64 "\n", walk, type, noted.used,
            noted.digest);
    assert_int_equal(fclose(f), 0);
}

static void each_isa(const char *walk, int types,
                     void (*check)(const char *isa, sbn_dtype t))
{
    for (int type = 0; type < types; type++) {
        unsigned char *want = NULL;
        size_t length = 0;
        for (const char *const *isa = sbni_kernels_isas(); *isa; isa++) {
            noted.used = 0;
            noted.digest = UINT64_C(0xcbf29ce484222325);
            noted.nothing = false;
            check(*isa, (sbn_dtype)type);
            if (noted.nothing) {
                assert_true(noted.used == 0);
                continue;
            }
            if (!want) {
                print_digest(walk, type);
                length = noted.used;
                want = malloc(length + 1);
                assert_non_null(want);
                memcpy(want, noted.bytes, length);
                continue;
            }
            assert_int_equal(noted.used, length);
            if (memcmp(want, noted.bytes, length) == 0) continue;
            fprintf(stderr, "%s differs from the best instruction set\n", *isa);
            fail();
        }
        free(want);
    }
}

static table_check check_nets;
static norm_table_check check_norm;
static words_table_check check_words;

static void run_nets(const char *isa, sbn_dtype t)
{
    const sbni_kernels *k = sbni_kernels_of(isa, t);
    assert_non_null(k);
    assert_string_equal(k->isa, isa);
    check_nets(k, t);
}

static void run_norm(const char *isa, sbn_dtype t)
{
    assert_non_null(sbni_norm_kernels_of(isa, t));
    check_norm(sbni_norm_kernels_of(isa, t), t);
}

static void run_words(const char *isa, sbn_dtype t)
{
    assert_non_null(sbni_words_kernels_of(isa, t));
    check_words(sbni_words_kernels_of(isa, t), t);
}

void each_table_named(const char *walk, table_check check)
{
    check_nets = check;
    each_isa(walk, 2, run_nets);
}

void each_norm_table_named(const char *walk, norm_table_check check)
{
    check_norm = check;
    each_isa(walk, 3, run_norm);
}

void each_words_table_named(const char *walk, words_table_check check)
{
    check_words = check;
    each_isa(walk, 2, run_words);
}

/* Draws are kept: cases take the same ones again and again. */
enum { DRAWS = 64 };
static struct {
    double *v;
    int64_t n;
} drawn[DRAWS];

void draw(sbn_dtype t, void *array, int64_t n, uint32_t which)
{
    sbni_rng_key key = {.seed = 51, .purpose = SBNI_RNG_TEST};
    assert_true(which < DRAWS);
    if (drawn[which].n < n) {
        drawn[which].v = realloc(drawn[which].v, (size_t)n * sizeof(double));
        assert_non_null(drawn[which].v);
    }
    for (; drawn[which].n < n; drawn[which].n++) {
        uint64_t i = (uint64_t)drawn[which].n;
        /* rounded, so that the last bits of libm don't show; then low bits of our own */
        double v = nearbyint(sbni_rng_normal(key, i, which) * 0x1p20),
               low = sbni_rng_uniform(key, i, which + DRAWS) - 0.5;
        drawn[which].v[i] = (v + low) * 0x1p-20;
    }
    for (int64_t i = 0; i < n; i++) set_element(t, array, i, drawn[which].v[i]);
}

void *exactly(sbn_dtype t, int64_t n, uint32_t which)
{
    void *array = malloc((size_t)bytes_of(t, n));
    assert_non_null(array);
    draw(t, array, n, which);
    return array;
}

double rounding(sbn_dtype t)
{
    return t == SBN_F64 ? DBL_EPSILON / 2 : t == SBN_BF16 ? 0x1p-8 : 0x1p-24;
}

void *room(sbn_dtype t, int64_t n)
{
    size_t bytes = (size_t)(n * sbn_dtype_bytes(t));
    unsigned char *p = malloc(bytes + GUARD);
    assert_non_null(p);
    memset(p, guard_byte, bytes + GUARD);
    return p;
}

void room_check(sbn_dtype t, void *array, int64_t n)
{
    const unsigned char *end = (unsigned char *)array + n * sbn_dtype_bytes(t);
    for (int i = 0; i < GUARD; i++) assert_int_equal(end[i], guard_byte);
    free(array);
}

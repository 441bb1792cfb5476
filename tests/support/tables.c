#include "support/tables.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "support/harness.h"
#include "support/layer.h"

enum { GUARD = 16 };
static const unsigned char guard_byte = 0xa5;

static struct {
    unsigned char *bytes;
    size_t used, room;
} noted;

void record(const void *output, int64_t bytes)
{
    if (noted.used + (size_t)bytes > noted.room) {
        noted.room = 2 * noted.room + (size_t)bytes;
        noted.bytes = realloc(noted.bytes, noted.room);
        assert_non_null(noted.bytes);
    }
    memcpy(noted.bytes + noted.used, output, (size_t)bytes);
    noted.used += (size_t)bytes;
}

static void each_isa(int types, void (*check)(const char *isa, sbn_dtype t))
{
    for (int type = 0; type < types; type++) {
        unsigned char *want = NULL;
        size_t length = 0;
        for (const char *const *isa = sbni_kernels_isas(); *isa; isa++) {
            noted.used = 0;
            check(*isa, (sbn_dtype)type);
            if (!want) {
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

void each_table(table_check check)
{
    check_nets = check;
    each_isa(2, run_nets);
}

void each_norm_table(norm_table_check check)
{
    check_norm = check;
    each_isa(3, run_norm);
}

void draw(sbn_dtype t, void *array, int64_t n, uint32_t which)
{
    sbni_rng_key key = {.seed = 51, .purpose = SBNI_RNG_TEST};
    for (int64_t i = 0; i < n; i++)
        set_element(t, array, i, sbni_rng_normal(key, (uint64_t)i, which));
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

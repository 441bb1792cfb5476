/* Tables, and kernels of gradients, on every instruction set and type. */
#include "support/harness.h"
#include "support/tables.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/cases.h"
#include "support/element.h"

/* Behind the edge sizes some that are read in several parts. */
static const int64_t long_sizes[] = {2047, 2048, 2049, 4099};
enum { LONG_SIZES = 4 };

static void gradients(const sbni_kernels *k, sbn_dtype t)
{
    for (int s = 0; s < EDGE_SIZES + LONG_SIZES; s++) {
        int64_t n = s < EDGE_SIZES ? edge_sizes[s] : long_sizes[s - EDGE_SIZES];
        uint64_t words[4100];
        memset(words, 0x55, sizeof words); /* the first slice sets them */
        words[n] = 0;
        void *g = room(t, n), *back = room(t, n);
        draw(t, g, n, 9);
        double largest = 0;
        for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs(element(t, g, i)));
        for (int pass = 0; pass < 2; pass++)
            assert_true(k->grad_quantize(g, n, 0x1p40, pass == 0, words) == largest);
        for (int64_t i = 0; i < n; i++) {
            double want = nearbyint(element(t, g, i) * 0x1p40);
            assert_true((int64_t)words[i] == 2 * (int64_t)want);
        }
        assert_true(words[n] == 0);
        k->grad_dequantize(words, n, 0x1p-41, back);
        for (int64_t i = 0; i < n; i++) {
            double want = (double)(int64_t)words[i] * 0x1p-41;
            if (t == SBN_F32) want = (double)(float)want;
            assert_true(element(t, back, i) == want);
        }
        record(words, n * 8);
        record(back, n * sbn_dtype_bytes(t));
        /* infinity and NaN are not hidden, wherever they are and by whatever follows */
        for (int64_t at = 0; at < n; at += 1 + n / 3) {
            set_element(t, g, at, -INFINITY);
            assert_true(k->grad_quantize(g, n, 1, at % 2, words) > DBL_MAX);
            set_element(t, g, (at + 1) % n, -NAN);
            assert_true(isnan(k->grad_quantize(g, n, 1, at % 2, words)));
            set_element(t, g, at, 0);
            set_element(t, g, (at + 1) % n, 0);
        }
        room_check(t, g, n);
        room_check(t, back, n);
    }
}

#define WALK(walk, check)                                                                \
    static void walk_##check(void **state)                                               \
    {                                                                                    \
        (void)state;                                                                     \
        walk(check);                                                                     \
    }
WALK(each_table, gradients)

/* Whether a line of the processor's description begins so, and has that word. */
static bool cpu_says(const char *begin, const char *word)
{
    char line[4096];
    bool found = false;
    FILE *f = fopen("/proc/cpuinfo", "r");
    assert_non_null(f);
    while (!found && fgets(line, sizeof line, f))
        found = !strncmp(line, begin, strlen(begin)) && strstr(line, word);
    fclose(f);
    return found;
}

static void tables(void **state)
{
    (void)state;
    assert_null(sbni_kernels_of("none", SBN_F32));
    assert_null(sbni_norm_kernels_of("none", SBN_F32));
    assert_null(sbni_words_kernels_of("none", SBN_F32));
    assert_null(sbni_kernels_of("base", SBN_BF16));
    assert_non_null(sbni_kernels_of("base", SBN_F32));
    setenv("SBN_ISA", "base", 1);
    assert_ptr_equal(sbni_kernels_get(SBN_F64), sbni_kernels_of("base", SBN_F64));
    assert_ptr_equal(sbni_norm_kernels_get(SBN_BF16),
                     sbni_norm_kernels_of("base", SBN_BF16));
    assert_ptr_equal(sbni_words_kernels_get(SBN_F32),
                     sbni_words_kernels_of("base", SBN_F32));
    unsetenv("SBN_ISA");
    const char *best = sbni_kernels_isas()[0];
    bool wide = sbni_kernels_of("avx512", SBN_F32),
         zen4 = wide && cpu_says("vendor_id", "AuthenticAMD") &&
                cpu_says("cpu family", ": 25\n");
    if (wide) assert_string_equal(best, zen4 ? "avx2" : "avx512");
    assert_ptr_equal(sbni_kernels_get(SBN_F32), sbni_kernels_of(best, SBN_F32));
    assert_ptr_equal(sbni_norm_kernels_get(SBN_F32), sbni_norm_kernels_of(best, SBN_F32));
    assert_ptr_equal(sbni_words_kernels_get(SBN_F32),
                     sbni_words_kernels_of(wide ? "avx512" : best, SBN_F32));
    assert_ptr_equal(sbni_words_kernels_get(SBN_BF16), sbni_words_kernels_get(SBN_F32));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(tables),
    cmocka_unit_test(walk_gradients),
};
TEST_MAIN(tests)

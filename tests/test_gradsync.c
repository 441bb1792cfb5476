#include "comm/gradsync.h"
#include "support/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "kernels/kernels.h"
#include "syncbn/norm.h"

__extension__ typedef __int128 wide;

/* Exponents start here, and a slice's largest gradient is to fill 27 to 47 bits. */
enum { FIRST = -40, LEAST = 27, TOP = 47, MOVE = 16, FLOOR = -400 };

enum { TENSORS = 3, ELEMENTS = 7 + 1 + 30, SLICES = 23, EXTRA = 2 };
static const sbni_gradsync_tensor tensors[TENSORS] = {
    {"first.weight", 7, 0}, {"second.weight", 1, 0}, {"second.bias", 30, 0}};
static const int first_of[TENSORS + 1] = {0, 7, 8, ELEMENTS};

/* Each case runs with all tensors in one message; with one for each, in parts; and so
 * that the last message holds nothing but the owner's words. */
static int segments;

static int in_one(void **state)
{
    (void)state;
    segments = 1;
    return 0;
}

static int in_parts(void **state)
{
    (void)state;
    segments = TENSORS;
    return 0;
}

static int with_an_empty_one(void **state)
{
    (void)state;
    segments = TENSORS + 1;
    return 0;
}

/* Gradients of all slices, known to every process; doubles that are exact floats. */
typedef struct job {
    sbn_dtype dtype;
    int threads, deal; /* deal: which slices go to which process and thread */
    bool lone;         /* all go to the last thread of the last process */
    double g[SLICES][ELEMENTS];
} job;

/* Normal draws; each tensor of its own magnitude, slice k 2^(k % 5) larger. */
static void draw(job *j, uint64_t seed, const double magnitude[TENSORS])
{
    sbni_rng_key key = {.seed = seed, .purpose = SBNI_RNG_TEST};
    for (int k = 0; k < SLICES; k++)
        for (int t = 0; t < TENSORS; t++)
            for (int e = first_of[t]; e < first_of[t + 1]; e++) {
                double v = magnitude[t] *
                           sbni_rng_normal(key, (uint64_t)(k * ELEMENTS + e), 0) *
                           (double)(1 << k % 5);
                j->g[k][e] = j->dtype == SBN_F64 ? v : (double)(float)v;
            }
}

static sbni_gradsync *make(int threads)
{
    sbni_gradsync *s = NULL;
    sbni_gradsync_tensor list[TENSORS];
    memcpy(list, tensors, sizeof list);
    for (int t = 0; t < TENSORS; t++) list[t].segment = segments == 1 ? 0 : t;
    OK(sbni_gradsync_create(test_group, list, TENSORS, segments, threads, EXTRA, &s));
    OK(sbni_gradsync_connect(s));
    return s;
}

/* Gradients of the tensors of a segment by slice k. */
static void add_slice(sbni_gradsync *s, const job *j, int segment, int k, int thread)
{
    for (int t = 0; t < TENSORS; t++) {
        if (segments > 1 && t != segment) continue;
        float narrow[ELEMENTS];
        for (int e = 0; e < ELEMENTS; e++) narrow[e] = (float)j->g[k][e];
        const void *g = j->dtype == SBN_F64 ? (const void *)(j->g[k] + first_of[t])
                                            : (const void *)(narrow + first_of[t]);
        bool first;
        uint64_t *words = sbni_gradsync_words(s, thread, t, &first);
        double largest = sbni_kernels_get(j->dtype)->grad_quantize(
            g, tensors[t].count, sbni_gradsync_scale(s, t), first, words);
        sbni_gradsync_note(s, thread, t, largest);
    }
}

/* The sum, blocking or in parts. */
static sbn_status sum(sbni_gradsync *s, sbn_status mine, bool *again)
{
    if (segments == 1) return sbni_gradsync_run(s, mine, again);
    for (int g = segments - 1; g >= 0; g--) {
        OK(sbni_gradsync_begin(s, g, mine));
        sbni_reduce_poke(test_group);
    }
    return sbni_gradsync_end(s, again);
}

/* This process's share of the slices, and the sum; in parts each is sent before the
 * gradients of the next are there. */
static sbn_status pass(sbni_gradsync *s, const job *j, bool *again)
{
    sbni_gradsync_clear(s);
    for (int g = segments - 1; g >= 0; g--) {
        for (int i = 0; i < SLICES; i++) {
            int k = j->deal % 2 ? SLICES - 1 - i : i, at = k * (j->deal + 1) + j->deal;
            if (j->lone) at = test_size * j->threads - 1;
            if (at % test_size != test_rank) continue;
            add_slice(s, j, g, k, at / test_size % j->threads);
            if (g < segments - 1) continue;
            sbni_gradsync_extra(s)[0] += 1;
            sbni_gradsync_extra(s)[1] += (uint64_t)k;
        }
        if (segments == 1) return sbni_gradsync_run(s, SBN_OK, again);
        OK(sbni_gradsync_begin(s, g, SBN_OK));
        sbni_reduce_poke(test_group);
    }
    return sbni_gradsync_end(s, again);
}

/* Passes until the exponents fit; the sums must then be the integers' own. */
static int settle(sbni_gradsync *s, const job *j)
{
    int passes = 0;
    for (bool again = true; again; passes++) {
        assert_true(passes < 200);
        OK(pass(s, j, &again));
    }
    for (int t = 0; t < TENSORS; t++)
        for (int e = first_of[t]; e < first_of[t + 1]; e++) {
            wide sum = 0;
            for (int k = 0; k < SLICES; k++)
                sum += (wide)nearbyint(
                    ldexp(j->g[k][e], -(int)sbni_gradsync_exponents(s)[t]));
            assert_true(sum == (int64_t)sbni_gradsync_sum(s, t)[e - first_of[t]]);
        }
    assert_int_equal(sbni_gradsync_extra_sum(s)[0], SLICES);
    assert_int_equal(sbni_gradsync_extra_sum(s)[1], SLICES * (SLICES - 1) / 2);
    return passes;
}

/* Bits that the largest gradient of any slice fills. */
static int bits_of(sbni_gradsync *s, const job *j, int t)
{
    double largest = 0;
    for (int k = 0; k < SLICES; k++)
        for (int e = first_of[t]; e < first_of[t + 1]; e++)
            largest = fmax(largest, fabs(j->g[k][e]));
    int bits;
    frexp(ldexp(largest, -(int)sbni_gradsync_exponents(s)[t]), &bits);
    return bits;
}

static void sums_are_exact_in_any_order(void **state)
{
    (void)state;
    for (int type = 0; type < 2; type++)
        for (int threads = 1; threads <= 3; threads++) {
            int64_t exponents[TENSORS];
            for (int deal = 0; deal < 4; deal++) {
                job j = {.dtype = type ? SBN_F64 : SBN_F32, .threads = threads};
                j.deal = deal;
                draw(&j, 1, (double[]){0.01, 3, 1e-5});
                sbni_gradsync *s = make(threads);
                settle(s, &j);
                /* and what was in words to which no slice comes is not summed again */
                for (int i = 0; i < 3; i++) {
                    j.lone = i < 2;
                    settle(s, &j);
                }
                if (deal == 0)
                    memcpy(exponents, sbni_gradsync_exponents(s), sizeof exponents);
                assert_memory_equal(exponents, sbni_gradsync_exponents(s),
                                    sizeof exponents);
                sbni_gradsync_destroy(&s);
                assert_null(s);
            }
        }
}

/* The most slices that are allowed, each just below the limit, in one thread. */
static void words_hold_all_slices(void **state)
{
    (void)state;
    sbni_gradsync_tensor one = {"one", 1, 0};
    sbni_gradsync *s = NULL;
    OK(sbni_gradsync_create(test_group, &one, 1, 1, 1, 0, &s));
    OK(sbni_gradsync_connect(s));
    bool again = true;
    float g = (float)(ldexp(1, TOP + FIRST) * (1 - 0x1p-24));
    assert_true((double)g * ldexp(1, -FIRST) < ldexp(1, TOP));
    sbni_gradsync_clear(s);
    for (int k = test_rank; k < SBNI_GRADSYNC_SLICES; k += test_size) {
        bool first;
        uint64_t *words = sbni_gradsync_words(s, 0, 0, &first);
        sbni_gradsync_note(s, 0, 0,
                           sbni_kernels_get(SBN_F32)->grad_quantize(
                               &g, 1, sbni_gradsync_scale(s, 0), first, words));
    }
    OK(sbni_gradsync_run(s, SBN_OK, &again));
    assert_false(again);
    wide want = (wide)((double)g * ldexp(1, -FIRST)) * SBNI_GRADSYNC_SLICES;
    assert_true(want == (int64_t)sbni_gradsync_sum(s, 0)[0]);
    sbni_gradsync_destroy(&s);
}

/* Tensors move on their own; a pass more for each 16 bits that the farthest is off. */
static void exponents_move_until_units_fit(void **state)
{
    (void)state;
    const double cases[][TENSORS] = {
        {1, 1, 1},        {1e9, 1, 1},       {1, 1e-12, 1},         {1e6, 1, 1e-12},
        {1e30, 1e-30, 1}, {1e-100, 1, 1e50}, {1e300, 1e-90, 1e200},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        job j = {.dtype = SBN_F64, .threads = 2};
        draw(&j, i, cases[i]);
        sbni_gradsync *s = make(2);
        int passes = settle(s, &j);
        int64_t farthest = 0;
        for (int t = 0; t < TENSORS; t++) {
            int bits = bits_of(s, &j, t);
            assert_true(bits > LEAST && bits <= TOP);
            int64_t moved = sbni_gradsync_exponents(s)[t] - FIRST;
            assert_true(moved % MOVE == 0);
            farthest = llabs(moved) > farthest ? llabs(moved) : farthest;
        }
        assert_int_equal(passes, 1 + farthest / MOVE);
        assert_int_equal(settle(s, &j), 1); /* and stay there */
        sbni_gradsync_destroy(&s);
    }
}

/* One slice above the limit decides, however many are far below. */
static void largest_slice_decides(void **state)
{
    (void)state;
    job j = {.dtype = SBN_F64, .threads = 1};
    draw(&j, 1, (double[]){1e-20, 1e-20, 1e-20});
    for (int k = 0; k < 2; k++) /* once above the limit, once between the two */
        for (int slice = 0; slice < SLICES; slice += SLICES - 1) {
            job one = j;
            one.g[slice][first_of[1]] = ldexp(1, FIRST + (k ? LEAST : TOP));
            sbni_gradsync *s = make(1);
            settle(s, &one);
            assert_int_equal(sbni_gradsync_exponents(s)[1], FIRST + (k ? 0 : MOVE));
            assert_true(sbni_gradsync_exponents(s)[0] < FIRST);
            sbni_gradsync_destroy(&s);
        }
}

static void zero_gradients_move_nothing(void **state)
{
    (void)state;
    job j = {.dtype = SBN_F32, .threads = 1};
    sbni_gradsync *s = make(1);
    assert_int_equal(settle(s, &j), 1);
    for (int t = 0; t < TENSORS; t++)
        assert_int_equal(sbni_gradsync_exponents(s)[t], FIRST);
    /* -0 is none either, and a dead slice does not spoil the others */
    for (int e = 0; e < ELEMENTS; e++) j.g[3][e] = -0.0;
    j.g[5][0] = 1;
    assert_int_equal(settle(s, &j), 1);
    assert_int_equal(sbni_gradsync_exponents(s)[0], FIRST);
    sbni_gradsync_destroy(&s);
}

/* Up and down through all magnitudes, each border met exactly and from both sides. */
static void exponents_do_not_swing(void **state)
{
    (void)state;
    sbni_gradsync *s = make(1);
    job j = {.dtype = SBN_F64, .threads = 1};
    for (int way = 0; way < 2; way++)
        for (int i = 0; i <= 160; i++)
            for (int side = -1; side <= 1; side++) {
                double border = ldexp(1, way ? 80 - i : i - 80);
                double v = side < 0   ? nextafter(border, 0)
                           : side > 0 ? nextafter(border, HUGE_VAL)
                                      : border;
                for (int k = 0; k < SLICES; k++) j.g[k][0] = k % 2 ? v : -v / 3;
                int passes = settle(s, &j);
                assert_true(passes <= 2 || (!way && i == 0)); /* the way to the first */
                assert_int_equal(settle(s, &j), 1);
            }
    sbni_gradsync_destroy(&s);
}

static void exponents_end_somewhere(void **state)
{
    (void)state;
    sbni_gradsync *s = make(1);
    job j = {.dtype = SBN_F64, .threads = 1};
    draw(&j, 1, (double[]){1e-300, 1e-320, 1e-300});
    settle(s, &j);
    for (int t = 0; t < TENSORS; t++)
        assert_in_range(-sbni_gradsync_exponents(s)[t], -FLOOR, -FLOOR + MOVE - 1);
    draw(&j, 1, (double[]){1e300, 1e306, 1e300});
    settle(s, &j);
    for (int t = 0; t < TENSORS; t++)
        assert_true(bits_of(s, &j, t) > LEAST && bits_of(s, &j, t) <= TOP);
    sbni_gradsync_destroy(&s);
}

static void expect_failure(sbni_gradsync *s, const job *j, sbn_status code,
                           const char *text)
{
    bool again;
    int guilty = test_size - 1;
    char peer[256];
    snprintf(peer, sizeof peer, "process %d: %s", guilty, text);
    FAILS(test_rank == guilty ? code : SBN_E_PEER, pass(s, j, &again));
    assert_string_equal(sbn_last_error(), test_rank == guilty ? text : peer);
    if (test_rank != guilty) assert_int_equal(sbn_peer_status(), code);
}

/* The tensor nearest to the loss is named: NaN came from there. */
static void trap_31_nan_names_its_tensor(void **state)
{
    (void)state;
    const double bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    for (int type = 0; type < 2; type++)
        for (int threads = 1; threads <= 2; threads++)
            for (int i = 0; i < 4; i++) {
                job good = {.dtype = type ? SBN_F64 : SBN_F32, .threads = threads};
                draw(&good, 1, (double[]){1, 1, 1});
                sbni_gradsync *s = make(threads);
                job j = good;
                /* slice k is dealt to process k % size */
                for (int k = test_size - 1; k < SLICES; k += test_size)
                    j.g[k][k % 7] = bad[i];
                expect_failure(s, &j, SBN_E_NONFINITE,
                               "gradient of first.weight is NaN or infinite");
                j.g[test_size - 1][first_of[1]] = bad[i];
                expect_failure(s, &j, SBN_E_NONFINITE,
                               "gradient of second.weight is NaN or infinite");
                assert_int_equal(sbni_gradsync_exponents(s)[0], FIRST);
                settle(s, &good); /* and goes on */
                sbni_gradsync_destroy(&s);
            }
}

static void failure_of_the_owner(void **state)
{
    (void)state;
    sbni_gradsync *s = make(1);
    bool again, guilty = test_rank == test_size - 1;
    sbni_gradsync_clear(s);
    sbn_status mine = guilty ? sbni_fail(SBN_E_DATA, "the owner's") : SBN_OK;
    FAILS(guilty ? SBN_E_DATA : SBN_E_PEER, sum(s, mine, &again));
    assert_non_null(strstr(sbn_last_error(), "the owner's"));
    sbni_gradsync_destroy(&s);
}

static void calls_out_of_step(void **state)
{
    (void)state;
    if (test_size == 1) skip();
    sbni_gradsync *s = make(1);
    bool again;
    if (test_rank == 0) sbni_gradsync_clear(s);
    sbni_gradsync_clear(s);
    FAILS(SBN_E_MISMATCH, sum(s, SBN_OK, &again));
    assert_non_null(strstr(sbn_last_error(), "gradients"));
    sbni_gradsync_destroy(&s);
}

/* An owner that gives up waits for what it began, and can begin anew. */
static void giving_up_between(void **state)
{
    (void)state;
    job j = {.dtype = SBN_F32, .threads = 1};
    draw(&j, 1, (double[]){1, 1, 1});
    sbni_gradsync *s = make(1);
    sbni_gradsync_clear(s);
    for (int g = segments - 1; g > 0; g--) OK(sbni_gradsync_begin(s, g, SBN_OK));
    assert_true(test_size == 1 || test_group->outstanding);
    OK(sbni_gradsync_wait(s));
    assert_null(test_group->outstanding);
    OK(sbni_gradsync_wait(s));
    settle(s, &j);
    sbni_gradsync_clear(s);
    OK(sbni_gradsync_begin(s, segments - 1, SBN_OK));
    sbni_gradsync_destroy(&s); /* while one is under way */
    assert_null(test_group->outstanding);
}

#define EACH(f)                                                                          \
    cmocka_unit_test_setup(f, in_one), cmocka_unit_test_setup(f, in_parts),              \
        cmocka_unit_test_setup(f, with_an_empty_one)

static const struct CMUnitTest tests[] = {
    EACH(sums_are_exact_in_any_order),
    cmocka_unit_test(words_hold_all_slices),
    EACH(exponents_move_until_units_fit),
    EACH(largest_slice_decides),
    EACH(zero_gradients_move_nothing),
    EACH(exponents_do_not_swing),
    EACH(exponents_end_somewhere),
    EACH(trap_31_nan_names_its_tensor),
    EACH(failure_of_the_owner),
    EACH(calls_out_of_step),
    cmocka_unit_test_setup(giving_up_between, in_parts),
};
TEST_MAIN(tests)

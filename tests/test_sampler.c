#include "comm/group.h"
#include "support/harness.h"
#include "syncbn/data.h"

#include <string.h>

static sbn_sampler *make(int64_t n, int64_t batch, bool drop_last, uint64_t seed)
{
    sbn_sampler *sampler = NULL;
    OK(sbn_sampler_create(n, batch, drop_last, seed, &sampler));
    return sampler;
}

/* All indices of one epoch, in order, into out; returns how many. */
static int64_t gather(sbn_sampler *sampler, int64_t epoch, int64_t *out)
{
    int64_t steps = sbn_sampler_steps(sampler), total = 0;
    for (int64_t i = 0; i < steps; i++) {
        const int64_t *index;
        int64_t n;
        sbn_sampler_batch(sampler, epoch * steps + i, &index, &n);
        memcpy(out + total, index, (size_t)n * sizeof *out);
        total += n;
    }
    return total;
}

static void epoch_is_a_permutation(void **state)
{
    (void)state;
    enum { N = 1000 };
    static const int64_t batches[] = {1, 7, 64, 500, 999, N};
    for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
        sbn_sampler *sampler = make(N, batches[b], false, 5);
        for (int64_t epoch = 0; epoch < 3; epoch++) {
            int64_t order[N];
            bool seen[N] = {0};
            assert_int_equal(gather(sampler, epoch, order), N);
            for (int i = 0; i < N; i++) {
                assert_in_range(order[i], 0, N - 1);
                assert_false(seen[order[i]]);
                seen[order[i]] = true;
            }
        }
        sbn_sampler_destroy(&sampler);
        assert_null(sampler);
    }
}

static void last_batch(void **state)
{
    (void)state;
    const int64_t *index;
    int64_t n;
    sbn_sampler *keep = make(10, 4, false, 1), *drop = make(10, 4, true, 1),
                *whole = make(12, 4, false, 1);
    assert_int_equal(sbn_sampler_steps(keep), 3);
    assert_int_equal(sbn_sampler_steps(drop), 2);
    assert_int_equal(sbn_sampler_steps(whole), 3);
    static const int64_t sizes[] = {4, 4, 2};
    for (int64_t step = 0; step < 9; step++) {
        sbn_sampler_batch(keep, step, &index, &n);
        assert_int_equal(n, sizes[step % 3]);
        sbn_sampler_batch(drop, step, &index, &n);
        assert_int_equal(n, 4);
        sbn_sampler_batch(whole, step, &index, &n);
        assert_int_equal(n, 4);
    }
    /* What is dropped is the end of the same order. */
    int64_t a[10], b[10];
    assert_int_equal(gather(keep, 2, a), 10);
    assert_int_equal(gather(drop, 2, b), 8);
    assert_memory_equal(a, b, 8 * sizeof *a);
    sbn_sampler_destroy(&keep);
    sbn_sampler_destroy(&drop);
    sbn_sampler_destroy(&whole);
}

static void order_has_a_key(void **state)
{
    (void)state;
    enum { N = 50 };
    int64_t a[N], b[N];
    sbn_sampler *one = make(N, 8, false, 1), *two = make(N, 8, false, 2),
                *other_batch = make(N, 13, false, 1);
    gather(one, 0, a);
    gather(one, 1, b);
    assert_memory_not_equal(a, b, sizeof a);
    gather(two, 0, b);
    assert_memory_not_equal(a, b, sizeof a);
    gather(other_batch, 0, b);
    assert_memory_equal(a, b, sizeof a);
    sbn_sampler_destroy(&one);
    sbn_sampler_destroy(&two);
    sbn_sampler_destroy(&other_batch);
}

/* The order is part of every result, so it stays what it is. */
static void known_order(void **state)
{
    (void)state;
    static const int64_t want[2][8] = {{2, 1, 7, 4, 3, 0, 6, 5},
                                       {1, 0, 4, 5, 3, 7, 2, 6}};
    int64_t got[8];
    sbn_sampler *sampler = make(8, 3, false, 1);
    for (int epoch = 0; epoch < 2; epoch++) {
        gather(sampler, epoch, got);
        for (int i = 0; i < 8; i++) assert_int_equal(got[i], want[epoch][i]);
    }
    sbn_sampler_destroy(&sampler);
}

/* A resumed run starts in the middle and has seen nothing before. */
static void any_step_first(void **state)
{
    (void)state;
    sbn_sampler *run = make(103, 10, false, 9);
    for (int64_t step = 0; step < 40; step++) {
        const int64_t *a, *b;
        int64_t na, nb;
        sbn_sampler *fresh = make(103, 10, false, 9);
        sbn_sampler_batch(run, step, &a, &na);
        sbn_sampler_batch(fresh, step, &b, &nb);
        assert_int_equal(na, nb);
        assert_memory_equal(a, b, (size_t)na * sizeof *a);
        sbn_sampler_destroy(&fresh);
    }
    sbn_sampler_destroy(&run);
}

/* All 24 orders of four samples come equally often. */
static void orders_are_uniform(void **state)
{
    (void)state;
    enum { EPOCHS = 24000 };
    int count[256] = {0}, orders = 0;
    sbn_sampler *sampler = make(4, 4, false, 3);
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
        int64_t p[4];
        gather(sampler, epoch, p);
        count[p[0] << 6 | p[1] << 4 | p[2] << 2 | p[3]]++;
    }
    double chi2 = 0;
    for (int i = 0; i < 256; i++) {
        if (count[i] == 0) continue;
        orders++;
        chi2 += (count[i] - 1000.0) * (count[i] - 1000.0) / 1000.0;
    }
    assert_int_equal(orders, 24);
    /* chi square of 23 degrees of freedom: 23 ± 6.8 */
    CLOSE(chi2, 23, 4 * 6.8);
    sbn_sampler_destroy(&sampler);
}

/* Processes that have looked at other epochs before see one and the same order. */
static void trap_33_same_order_everywhere(void **state)
{
    (void)state;
    sbn_sampler *sampler = make(1000, 64, false, 4);
    const int64_t *index;
    int64_t n;
    for (int i = 0; i < test_rank; i++) sbn_sampler_batch(sampler, 100 + i, &index, &n);
    for (int64_t step = 0; step < 40; step++) {
        sbn_sampler_batch(sampler, step, &index, &n);
        int64_t hash = n;
        for (int64_t i = 0; i < n; i++) hash = (hash * 1009 + index[i]) % 1000003;
        OK(sbni_group_check_same(test_group, hash, "order"));
    }
    sbn_sampler_destroy(&sampler);
}

static void arguments(void **state)
{
    (void)state;
    sbn_sampler *s = NULL;
    FAILS(SBN_E_ARG, sbn_sampler_create(10, 1, false, 1, NULL));
    FAILS(SBN_E_ARG, sbn_sampler_create(0, 1, false, 1, &s));
    FAILS(SBN_E_ARG, sbn_sampler_create(10, 0, false, 1, &s));
    FAILS(SBN_E_ARG, sbn_sampler_create(10, 11, false, 1, &s));
    FAILS(SBN_E_MEMORY, sbn_sampler_create(INT64_MAX, 1, false, 1, &s));
    assert_null(s);
    sbn_sampler_destroy(&s);
    sbn_sampler_destroy(NULL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(epoch_is_a_permutation),
    cmocka_unit_test(last_batch),
    cmocka_unit_test(order_has_a_key),
    cmocka_unit_test(known_order),
    cmocka_unit_test(any_step_first),
    cmocka_unit_test(orders_are_uniform),
    cmocka_unit_test(trap_33_same_order_everywhere),
    cmocka_unit_test(arguments),
};
TEST_MAIN(tests)

#include "comm/alike.h"
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

enum { CLASSED = 1200 };

/* Labels of classes of uneven size: class c has a share that grows with c. */
static void label(int64_t n, int count, int32_t *labels)
{
    for (int64_t i = 0; i < n; i++)
        labels[i] = (int32_t)((i * 7919 % n * (count + 3) / n + i) % count);
}

static sbn_sampler *make_classes(int64_t n, int64_t batch, int64_t group, int64_t classes,
                                 const int32_t *labels, uint64_t seed)
{
    sbn_sampler *sampler = NULL;
    sbn_sampler_classes c = {labels, classes, group};
    OK(sbn_sampler_create_classes(n, batch, &c, seed, &sampler));
    return sampler;
}

/* A group has `classes` classes, its samples stand class by class, as many of each. */
static void check_group(const int64_t *index, int64_t n, int64_t classes,
                        const int32_t *labels)
{
    bool seen[32] = {0};
    assert_int_equal(n % classes, 0);
    int64_t each = n / classes;
    for (int64_t k = 0; k < classes; k++) {
        int32_t class = labels[index[k * each]];
        assert_false(seen[class]);
        seen[class] = true;
        for (int64_t i = 1; i < each; i++)
            assert_int_equal(labels[index[k * each + i]], class);
    }
}

static void groups_have_few_classes(void **state)
{
    (void)state;
    static const struct {
        int64_t batch, group, classes;
        int count;
    } cases[] = {{64, 64, 1, 10}, {64, 32, 2, 10},  {64, 16, 16, 20}, {60, 24, 4, 10},
                 {50, 20, 5, 7},  {1200, 6, 3, 10}, {64, 16, 8, 10},  {30, 1, 1, 3}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        int64_t batch = cases[k].batch, group = cases[k].group;
        int32_t labels[CLASSED];
        label(CLASSED, cases[k].count, labels);
        sbn_sampler *sampler =
            make_classes(CLASSED, batch, group, cases[k].classes, labels, 3);
        assert_int_equal(sbn_sampler_steps(sampler), CLASSED / batch);
        for (int64_t step = 0; step < 3 * (CLASSED / batch); step++) {
            const int64_t *index;
            int64_t n;
            sbn_sampler_batch(sampler, step, &index, &n);
            assert_int_equal(n, batch);
            for (int64_t g = 0; g < n; g += group)
                check_group(index + g, n - g < group ? n - g : group, cases[k].classes,
                            labels);
        }
        sbn_sampler_destroy(&sampler);
    }
}

/* With classes of one size an epoch has nearly every sample once: a queue never begins
 * again before its class is through, and few samples wait at the end. */
static void classes_take_turns(void **state)
{
    (void)state;
    enum { N = 6000, COUNT = 10 };
    static int32_t labels[N];
    static int64_t order[N];
    for (int i = 0; i < N; i++) labels[i] = i / (N / COUNT);
    sbn_sampler *sampler = make_classes(N, 64, 32, 2, labels, 1);
    for (int64_t epoch = 0; epoch < 3; epoch++) {
        static int times[N];
        memset(times, 0, sizeof times);
        int64_t total = gather(sampler, epoch, order);
        assert_int_equal(total, N / 64 * 64);
        for (int64_t i = 0; i < total; i++) times[order[i]]++;
        int missed = 0, again = 0;
        for (int c = 0; c < COUNT; c++) {
            int least = 9, most = 0;
            for (int i = c * (N / COUNT); i < (c + 1) * (N / COUNT); i++) {
                least = times[i] < least ? times[i] : least;
                most = times[i] > most ? times[i] : most;
                missed += times[i] == 0;
                again += times[i] == 2;
            }
            assert_in_range(most - least, 0, 1);
            assert_in_range(most, 1, 2);
        }
        assert_int_equal(missed - again, N % 64);
        assert_in_range(missed, 0, N / 50);
    }
    sbn_sampler_destroy(&sampler);
}

/* Where each group has all classes, the small ones come again, each sample as often as
 * the others of its class but for one. */
static void small_classes_come_again(void **state)
{
    (void)state;
    enum { N = 100 };
    int32_t labels[N];
    int64_t order[N];
    int times[N] = {0};
    for (int i = 0; i < N; i++) labels[i] = i < 10 ? 4 : 7;
    sbn_sampler *sampler = make_classes(N, 20, 20, 2, labels, 1);
    assert_int_equal(gather(sampler, 0, order), N);
    for (int i = 0; i < N; i++) times[order[i]]++;
    for (int i = 0; i < N; i++) {
        if (i < 10)
            assert_int_equal(times[i], 5);
        else
            assert_in_range(times[i], 0, 1);
    }
    sbn_sampler_destroy(&sampler);
}

/* The first pairs of classes are uniform; the next group finds 8, 8, 10 and 10 samples
 * waiting and draws from them. */
static void classes_are_drawn_by_their_samples(void **state)
{
    (void)state;
    enum { N = 40, COUNT = 4, EPOCHS = 24000 };
    int32_t labels[N];
    int count[COUNT * COUNT] = {0}, again = 0, first[N / COUNT] = {0};
    for (int i = 0; i < N; i++) labels[i] = i % COUNT;
    sbn_sampler *sampler = make_classes(N, 40, 4, 2, labels, 8);
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
        int64_t order[N];
        gather(sampler, epoch, order);
        int32_t a = labels[order[0]], b = labels[order[2]], next = labels[order[4]];
        count[a * COUNT + b]++;
        again += next == a || next == b;
        first[order[0] / COUNT]++; /* which of the 10 samples of its class */
    }
    double chi2 = 0, each = EPOCHS / 12.0;
    for (int i = 0; i < COUNT * COUNT; i++) {
        double off = count[i] - each;
        if (i % (COUNT + 1) == 0)
            assert_int_equal(count[i], 0);
        else
            chi2 += off * off / each;
    }
    /* chi square of 11 degrees of freedom: 11 ± 4.7 */
    CLOSE(chi2, 11, 4 * 4.7);
    CLOSE((double)again / EPOCHS, 16.0 / 36, 4 * 0.0032);
    chi2 = 0, each = EPOCHS / 10.0;
    for (int i = 0; i < N / COUNT; i++)
        chi2 += (first[i] - each) * (first[i] - each) / each;
    CLOSE(chi2, 9, 4 * 4.3);
    sbn_sampler_destroy(&sampler);
}

/* The order has a key, and none but that: any epoch may be looked at first, on any
 * process. */
static void trap_33_classes_by_counter(void **state)
{
    (void)state;
    int32_t labels[CLASSED];
    int64_t run[CLASSED], fresh[CLASSED];
    label(CLASSED, 10, labels);
    sbn_sampler *one = make_classes(CLASSED, 64, 32, 2, labels, 1),
                *two = make_classes(CLASSED, 64, 32, 2, labels, 2);
    int64_t total = gather(two, 0, fresh);
    gather(one, 0, run);
    assert_memory_not_equal(run, fresh, (size_t)total * sizeof *run);
    for (int64_t epoch = test_rank; epoch < 5; epoch++) gather(one, epoch, run);
    gather(one, 0, fresh);
    gather(one, 4, run);
    assert_memory_not_equal(run, fresh, (size_t)total * sizeof *run);
    sbn_sampler *late = make_classes(CLASSED, 64, 32, 2, labels, 1);
    gather(late, 4, fresh);
    assert_memory_equal(run, fresh, (size_t)total * sizeof *run);
    int64_t hash = 0;
    for (int64_t i = 0; i < total; i++) hash = (hash * 1009 + run[i]) % 1000003;
    OK(sbni_group_check_same(test_group, hash, "order"));
    sbn_sampler_destroy(&one);
    sbn_sampler_destroy(&two);
    sbn_sampler_destroy(&late);
}

static void arguments_of_classes(void **state)
{
    (void)state;
    static const int32_t labels[12] = {0, 1, 2, 5, 5, 2, 1, 0, 0, 1, 2, 2},
                         bad[12] = {0, 1, 2, 3, -1};
    static const struct {
        int64_t batch;
        sbn_sampler_classes classes;
    } cases[] = {
        {8, {NULL, 2, 8}},    {8, {labels, 0, 8}},  {8, {labels, -2, 8}},
        {8, {labels, 3, 8}},  {8, {labels, 16, 8}}, {8, {labels, 2, 0}},
        {8, {labels, 2, 10}}, {8, {labels, 3, 6}},  {10, {labels, 5, 10}},
        {8, {bad, 2, 8}},     {13, {labels, 1, 1}},
    };
    sbn_sampler *s = NULL;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        FAILS(SBN_E_ARG,
              sbn_sampler_create_classes(12, cases[k].batch, &cases[k].classes, 1, &s));
    FAILS(SBN_E_ARG, sbn_sampler_create_classes(12, 8, NULL, 1, &s));
    FAILS(SBN_E_ARG, sbn_sampler_create_classes(12, 8, &cases[0].classes, 1, NULL));
    assert_null(s);
    s = make_classes(12, 12, 8, 4, labels, 1); /* a last group of 4 */
    sbn_sampler_destroy(&s);
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
    cmocka_unit_test(groups_have_few_classes),
    cmocka_unit_test(classes_take_turns),
    cmocka_unit_test(small_classes_come_again),
    cmocka_unit_test(classes_are_drawn_by_their_samples),
    cmocka_unit_test(trap_33_classes_by_counter),
    cmocka_unit_test(arguments_of_classes),
    cmocka_unit_test(arguments),
};
TEST_MAIN(tests)

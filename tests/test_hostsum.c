/* Sums through memory of the host against sums added up one by one: short and long, in
 * any order, again and again, and where processes are not in the same one. */
#include "support/harness.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "comm/reduce.h"
#include "core/rng.h"

static const int64_t lengths[] = {1, 5, 300, 50000};
enum { LENGTHS = sizeof lengths / sizeof *lengths };

static uint64_t word(uint64_t message, int process, int64_t k)
{
    sbni_rng_key key = {.seed = message, .purpose = SBNI_RNG_TEST};
    return sbni_rng_u64(key, (uint64_t)k, (uint32_t)process);
}

static sbni_reduce make(int64_t words)
{
    sbni_reduce r;
    OK(sbni_reduce_create(test_group, words, &r));
    return r;
}

static void connect(sbni_reduce *r)
{
    OK(sbni_reduce_connect(r));
    /* else another way is tested than this is about */
    assert_true(test_size == 1 || r->host.memory);
}

static void fill(sbni_reduce *r, uint32_t tag)
{
    sbni_reduce_clear(r, tag);
    for (int64_t k = SBNI_HEAD_WORDS; k < r->words; k++)
        r->send[k] = word(tag, test_rank, k);
}

static void expect(const sbni_reduce *r, uint32_t tag)
{
    for (int64_t k = SBNI_HEAD_WORDS; k < r->words; k++) {
        uint64_t sum = 0;
        for (int p = 0; p < test_size; p++) sum += word(tag, p, k);
        if (r->sum[k] != sum) fail_msg("word %d of %d", (int)k, (int)r->words);
    }
    assert_int_equal(r->sum[SBNI_HEAD_TAG], (uint64_t)tag * (uint64_t)test_size);
}

/* Processes come late in turns, each by giving its core away. */
static void dawdle(int step)
{
    if (step % (test_size + 1) == test_rank)
        for (int i = 0; i < 50; i++) sched_yield();
}

static void each_length(void **state)
{
    (void)state;
    for (int l = 0; l < LENGTHS; l++) {
        sbni_reduce r = make(lengths[l]);
        fill(&r, 7); /* what is filled before stays */
        connect(&r);
        OK(sbni_reduce_run(&r));
        expect(&r, 7);
        for (int i = 0; i < 40; i++) {
            uint32_t tag = (uint32_t)(100 * l + i);
            fill(&r, tag);
            dawdle(i);
            if (i % 2) {
                OK(sbni_reduce_run(&r));
            } else {
                OK(sbni_reduce_begin(&r));
                for (int k = 0; k < i % 5; k++) sbni_reduce_poke(test_group);
                dawdle(i + 1);
                OK(sbni_reduce_end(&r));
            }
            expect(&r, tag);
            OK(sbni_reduce_verdict(&r, SBN_OK, "test"));
        }
        sbni_reduce_destroy(&r);
    }
}

/* A process that is done fills its words anew while others still read the last ones. */
static void nobody_waits_for_readers(void **state)
{
    (void)state;
    sbni_reduce a = make(20000), b = make(3);
    connect(&a);
    connect(&b);
    for (int i = 0; i < 300; i++) {
        fill(&a, (uint32_t)i);
        OK(sbni_reduce_run(&a));
        fill(&b, (uint32_t)i);
        OK(sbni_reduce_run(&b));
        if (i % 10 == 0) expect(&a, (uint32_t)i);
        expect(&b, (uint32_t)i);
    }
    sbni_reduce_destroy(&a);
    sbni_reduce_destroy(&b);
}

/* The same words, sent again without being filled again. */
static void sent_twice(void **state)
{
    (void)state;
    for (int l = 0; l < LENGTHS; l++) {
        sbni_reduce r = make(lengths[l]);
        connect(&r);
        fill(&r, 3);
        for (int i = 0; i < 20; i++) {
            dawdle(i);
            OK(sbni_reduce_run(&r));
            expect(&r, 3);
            memset(r.sum, 0, 8 * (size_t)r.words);
        }
        sbni_reduce_destroy(&r);
    }
}

/* Begun in one order and ended in another on each process, with a message of their length
 * that runs between. */
static void many_at_once(void **state)
{
    (void)state;
    enum { MANY = 6 };
    for (int l = 0; l < LENGTHS; l++) {
        sbni_reduce r[MANY], between = make(lengths[l]);
        for (int k = 0; k < MANY; k++) {
            r[k] = make(lengths[l]);
            connect(&r[k]);
        }
        connect(&between);
        for (int step = 0; step < 30; step++) {
            for (int k = 0; k < MANY; k++) {
                fill(&r[k], (uint32_t)(step * MANY + k));
                OK(sbni_reduce_begin(&r[k]));
                dawdle(step + k);
            }
            for (int i = 0; i < 3; i++) {
                fill(&between, (uint32_t)(1000 + i));
                OK(sbni_reduce_run(&between));
                expect(&between, (uint32_t)(1000 + i));
            }
            for (int i = 0; i < MANY; i++) {
                int k = (i + step * test_rank) % MANY;
                OK(sbni_reduce_end(&r[k]));
                expect(&r[k], (uint32_t)(step * MANY + k));
            }
        }
        for (int k = 0; k < MANY; k++) sbni_reduce_destroy(&r[k]);
        sbni_reduce_destroy(&between);
    }
}

/* One process is in another message of that length than the others. All hear of it, also
 * where the odd one has long used its words for the next; and all go on. */
static void out_of_order(void **state)
{
    (void)state;
    if (test_size == 1) return;
    for (int l = 0; l < LENGTHS; l++)
        for (int odd = 0; odd < test_size; odd++) {
            sbni_reduce a = make(lengths[l]), b = make(lengths[l]);
            connect(&a);
            connect(&b);
            sbni_reduce *mine = test_rank == odd ? &b : &a;
            sbni_reduce *other = test_rank == odd ? &a : &b;
            fill(&a, 1);
            fill(&b, 2);
            OK(sbni_reduce_begin(mine));
            for (int i = 0; i < 4; i++) { /* all use b, which was the odd one's first */
                bool late = mine != &b || i > 0;
                if (late) fill(&b, (uint32_t)(10 + i));
                if (mine == &b && i == 0) {
                    OK(sbni_reduce_end(&b));
                    FAILS(SBN_E_MISMATCH, sbni_reduce_verdict(&b, SBN_OK, "test"));
                    fill(&b, (uint32_t)(10 + i));
                }
                OK(sbni_reduce_run(&b));
                expect(&b, (uint32_t)(10 + i));
            }
            if (mine == &a) {
                OK(sbni_reduce_end(&a));
                FAILS(SBN_E_MISMATCH, sbni_reduce_verdict(&a, SBN_OK, "test"));
            }
            fill(other, 5);
            fill(&a, 6);
            OK(sbni_reduce_run(&a));
            expect(&a, 6);
            OK(sbni_reduce_verdict(&a, SBN_OK, "test"));
            sbni_reduce_destroy(&a);
            sbni_reduce_destroy(&b);
        }
}

/* A message that goes while its sum is under way: the others still have its words. */
static void given_up(void **state)
{
    (void)state;
    for (int l = 0; l < LENGTHS; l++)
        for (int odd = 0; odd < test_size; odd++) {
            sbni_reduce r = make(lengths[l]);
            connect(&r);
            fill(&r, 9);
            OK(sbni_reduce_begin(&r));
            if (test_rank != odd) {
                dawdle(odd);
                OK(sbni_reduce_end(&r));
                expect(&r, 9);
            }
            sbni_reduce_destroy(&r);
        }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(each_length),  cmocka_unit_test(nobody_waits_for_readers),
    cmocka_unit_test(sent_twice),   cmocka_unit_test(many_at_once),
    cmocka_unit_test(out_of_order), cmocka_unit_test(given_up),
};
TEST_MAIN(tests)

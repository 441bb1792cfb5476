/* Sums through memory of the host against sums added up one by one: short ones and those
 * that go by pieces, in any order, again and again, and where processes are not in the
 * same one. */
#include "support/count_mpi.h"
#include "support/harness.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "comm/hostmem.h"
#include "comm/reduce.h"
#include "core/memory.h"

/* Words behind the header; the third is the longest that each process adds up for
 * itself, those behind it go by pieces. */
enum { LENGTHS = 6, SHORT_WORDS = 8192 };

static int64_t length(int l)
{
    const int64_t longest = SHORT_WORDS / test_size - SBNI_HEAD_WORDS,
                  all[LENGTHS] = {
                      1, 300, longest, longest + 1, 40960 - SBNI_HEAD_WORDS, 50000};
    return all[l];
}

/* Words without a pattern that a mistake could keep. */
static uint64_t word(uint64_t message, int process, int64_t k)
{
    uint64_t h = (message << 8 | (uint64_t)process) * UINT64_C(0x9e3779b97f4a7c15);
    h = (h ^ (uint64_t)k) * UINT64_C(0xff51afd7ed558ccd);
    return h ^ h >> 29;
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
    assert_int_equal(r->host.memory != NULL, test_size > 1);
    assert_int_equal(r->host.piece > 0, test_size > 1 && test_size * r->words > 1 << 13);
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

/* Nothing is left of the sum that may be found in the place of the next. */
static void forget(sbni_reduce *r)
{
    MPI_Barrier(MPI_COMM_WORLD);
    /* of one process it is what was sent */
    if (test_size > 1) memset((void *)(uintptr_t)r->sum, 0, 8 * (size_t)r->words);
    MPI_Barrier(MPI_COMM_WORLD);
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
        sbni_reduce r = make(length(l));
        fill(&r, 7); /* what is filled before stays */
        connect(&r);
        OK(sbni_reduce_run(&r));
        expect(&r, 7);
        for (int i = 0; i < 40; i++) {
            uint32_t tag = (uint32_t)(100 * l + i);
            fill(&r, tag);
            dawdle(i);
            count_start();
            if (i % 2) {
                OK(sbni_reduce_run(&r));
            } else {
                OK(sbni_reduce_begin(&r));
                for (int k = 0; k < i % 5; k++) sbni_reduce_poke(test_group);
                dawdle(i + 1);
                OK(sbni_reduce_end(&r));
            }
            message_count sent = count_read();
            assert_int_equal(sent.allreduces + sent.iallreduces, 0);
            assert_int_equal(sent.others + sent.broadcasts, 0);
            expect(&r, tag);
            OK(sbni_reduce_verdict(&r, SBN_OK, "test"));
        }
        sbni_reduce_destroy(&r);
    }
}

/* Sums that go by MPI under way while others go through memory: whoever waits in these
 * moves those on. */
static void beside_sums_by_mpi(void **state)
{
    (void)state;
    sbni_reduce r[2] = {make(300), make(50000)};
    for (int l = 0; l < 2; l++) connect(&r[l]);
    int *sent = NULL, *sum = NULL;
    enum { COUNT = 100000 };
    OK(sbni_alloc(COUNT, sizeof *sent, "test", &sent));
    OK(sbni_alloc(COUNT, sizeof *sum, "test", &sum));
    for (int step = 0; step < 10; step++) {
        MPI_Request by_mpi;
        for (int k = 0; k < COUNT; k++) sent[k] = step + k;
        MPI_Iallreduce(sent, sum, COUNT, MPI_INT, MPI_SUM, MPI_COMM_WORLD, &by_mpi);
        bool first = (step + test_rank) % 2;
        if (first) MPI_Wait(&by_mpi, MPI_STATUS_IGNORE);
        for (int i = 0; i < 6; i++) {
            fill(&r[i % 2], (uint32_t)(100 * step + i));
            OK(sbni_reduce_run(&r[i % 2]));
            expect(&r[i % 2], (uint32_t)(100 * step + i));
        }
        if (!first) MPI_Wait(&by_mpi, MPI_STATUS_IGNORE);
        for (int k = 0; k < COUNT; k++) assert_int_equal(sum[k], test_size * (step + k));
    }
    sbni_free(sent);
    sbni_free(sum);
    for (int l = 0; l < 2; l++) sbni_reduce_destroy(&r[l]);
}

/* Two sums by pieces are under way, and a process ends them only when the others have:
 * they add up its share. */
static void nobody_waits_for_who_is_away(void **state)
{
    (void)state;
    sbni_reduce r[2] = {make(50000), make(60000)};
    for (int l = 0; l < 2; l++) connect(&r[l]);
    for (int away = 0; away < test_size; away++) {
        for (int l = 0; l < 2; l++) {
            fill(&r[l], (uint32_t)(10 * away + l));
            OK(sbni_reduce_begin(&r[l]));
        }
        if (test_rank == away) MPI_Barrier(MPI_COMM_WORLD);
        for (int l = 0; l < 2; l++) {
            OK(sbni_reduce_end(&r[l]));
            expect(&r[l], (uint32_t)(10 * away + l));
        }
        if (test_rank != away) MPI_Barrier(MPI_COMM_WORLD);
    }
    for (int l = 0; l < 2; l++) sbni_reduce_destroy(&r[l]);
}

/* Without memory on one process, of a new length and of one that has some already, sums
 * of all go by MPI. */
static void memory_that_one_lacks(void **state)
{
    (void)state;
    static const struct {
        int resource;
        rlim_t limit;
    } lacks[] = {{RLIMIT_NOFILE, 0}, {RLIMIT_FSIZE, 1000}};
    if (test_size == 1) return;
    for (int k = 0; k < 2; k++)
        for (int odd = 0; odd < (k ? 1 : test_size); odd++) {
            /* no file can be opened, or be as long: only the first makes one */
            struct rlimit was, small;
            sbni_reduce r[3] = {make(300), make(700 + 10 * k + odd), make(300)};
            connect(&r[0]);
            assert_int_equal(getrlimit(lacks[k].resource, &was), 0);
            small = was;
            small.rlim_cur = lacks[k].limit;
            if (test_rank == odd) setrlimit(lacks[k].resource, &small);
            for (int i = 1; i < 3; i++) {
                OK(sbni_reduce_connect(&r[i]));
                assert_null(r[i].host.memory);
            }
            sbni_hostmem data;
            OK(sbni_hostmem_create(test_group, 5000, &data));
            setrlimit(lacks[k].resource, &was);
            /* and each has a copy of what else they would share */
            assert_int_equal(data.size, 1);
            memset(data.data, test_rank, 5000);
            OK(sbni_hostmem_publish(&data));
            assert_int_equal(((char *)data.data)[4999], test_rank);
            sbni_hostmem_destroy(&data);
            for (int i = 0; i < 9; i++) {
                fill(&r[i % 3], (uint32_t)i);
                OK(sbni_reduce_run(&r[i % 3]));
                expect(&r[i % 3], (uint32_t)i);
            }
            for (int i = 0; i < 3; i++) { /* all under way, through memory and by MPI */
                fill(&r[i], (uint32_t)(10 + i));
                OK(sbni_reduce_begin(&r[i]));
                sbni_reduce_poke(test_group);
            }
            for (int i = 0; i < 2; i++) {
                int which = (i + test_rank) % 2;
                OK(sbni_reduce_end(&r[which]));
                expect(&r[which], (uint32_t)(10 + which));
            }
            for (int i = 0; i < 3; i++) sbni_reduce_destroy(&r[i]);
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
        sbni_reduce r = make(length(l));
        connect(&r);
        fill(&r, 3);
        for (int i = 0; i < 20; i++) {
            dawdle(i);
            OK(sbni_reduce_run(&r));
            expect(&r, 3);
            forget(&r);
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
        sbni_reduce r[MANY], between = make(length(l));
        for (int k = 0; k < MANY; k++) {
            r[k] = make(length(l));
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
            sbni_reduce a = make(length(l)), b = make(length(l));
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

/* A process ends a sum after the others have ended it, and filled its words with the next
 * but one in the place of sums that it does not take part in. */
static void ended_too_late(void **state)
{
    (void)state;
    if (test_size == 1) return;
    for (int l = 0; l < LENGTHS; l++) {
        sbni_reduce a = make(length(l)), b = make(length(l)), c = make(length(l));
        connect(&a);
        connect(&b);
        connect(&c);
        bool late = test_rank == test_size - 1;
        fill(&a, 1);
        OK(sbni_reduce_begin(&a));
        if (!late) {
            OK(sbni_reduce_end(&a));
            expect(&a, 1);
            fill(&a, 2);
        }
        sbni_reduce *odd = late ? &c : &a;
        if (late) fill(&c, 3);
        OK(sbni_reduce_begin(odd));
        fill(&b, 4);
        OK(sbni_reduce_run(&b));
        expect(&b, 4);
        OK(sbni_reduce_end(odd));
        FAILS(SBN_E_MISMATCH, sbni_reduce_verdict(odd, SBN_OK, "test"));
        if (!late) fill(&a, 5);
        MPI_Barrier(MPI_COMM_WORLD);
        if (late) {
            OK(sbni_reduce_end(&a));
            FAILS(SBN_E_MISMATCH, sbni_reduce_verdict(&a, SBN_OK, "test"));
            fill(&a, 5);
        }
        OK(sbni_reduce_run(&a));
        expect(&a, 5);
        sbni_reduce_destroy(&a);
        sbni_reduce_destroy(&b);
        sbni_reduce_destroy(&c);
    }
}

/* A message that goes while its sum is under way: the others still have its words. */
static void given_up(void **state)
{
    (void)state;
    for (int l = 0; l < LENGTHS; l++)
        for (int odd = 0; odd < test_size; odd++) {
            sbni_reduce r = make(length(l));
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
    cmocka_unit_test(each_length),
    cmocka_unit_test(nobody_waits_for_readers),
    cmocka_unit_test(sent_twice),
    cmocka_unit_test(many_at_once),
    cmocka_unit_test(out_of_order),
    cmocka_unit_test(ended_too_late),
    cmocka_unit_test(given_up),
    cmocka_unit_test(beside_sums_by_mpi),
    cmocka_unit_test(memory_that_one_lacks),
    cmocka_unit_test(nobody_waits_for_who_is_away),
};
TEST_MAIN(tests)

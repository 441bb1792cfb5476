#include "core/rng.h"
#include "support/harness.h"

#include <math.h>

/* Draws are part of every result; these words are the published known answers of Philox
 * 4x32-10 for key and counter of zeros and of ones. */
static void known_answers(void **state)
{
    (void)state;
    uint32_t w[4];
    sbni_rng_words((sbni_rng_key){.seed = 0, .purpose = 0, .epoch = 0}, 0, 0, w);
    assert_int_equal(w[0], 0x6627e8d5);
    assert_int_equal(w[1], 0xe169c58d);
    assert_int_equal(w[2], 0xbc57ac4c);
    assert_int_equal(w[3], 0x9b00dbd8);
    sbni_rng_key ones = {.seed = UINT64_MAX, .purpose = 15, .epoch = UINT32_MAX};
    sbni_rng_words(ones, UINT64_MAX, 0x0fffffff, w);
    assert_int_equal(w[0], 0x408f276d);
    assert_int_equal(w[1], 0x41c83b0e);
    assert_int_equal(w[2], 0xa20bc7c6);
    assert_int_equal(w[3], 0x6d5451fd);
}

static void keys_are_independent(void **state)
{
    (void)state;
    sbni_rng_key a = {.seed = 1, .purpose = SBNI_RNG_INIT, .epoch = 0}, b = a, c = a;
    b.purpose = SBNI_RNG_SHUFFLE;
    c.epoch = 1;
    uint64_t x = sbni_rng_u64(a, 7, 0);
    assert_int_not_equal(x, sbni_rng_u64(b, 7, 0));
    assert_int_not_equal(x, sbni_rng_u64(c, 7, 0));
    assert_int_not_equal(x, sbni_rng_u64(a, 8, 0));
    assert_int_not_equal(x, sbni_rng_u64(a, 7, 1));
    assert_true(x == sbni_rng_u64(a, 7, 0));
}

static void moments_of_draws(void **state)
{
    (void)state;
    enum { N = 100000 };
    sbni_rng_key key = {.seed = 3, .purpose = SBNI_RNG_TEST};
    double u = 0, uu = 0, g = 0, gg = 0;
    for (int i = 0; i < N; i++) {
        double x = sbni_rng_uniform(key, (uint64_t)i, 0),
               z = sbni_rng_normal(key, (uint64_t)i, 1);
        assert_true(x >= 0 && x < 1);
        u += x, uu += x * x, g += z, gg += z * z;
    }
    /* five standard errors of each mean */
    double e = 5 / sqrt((double)N);
    CLOSE(u / N, 0.5, e * sqrt(1 / 12.0));
    CLOSE(uu / N, 1 / 3.0, e * sqrt(4 / 45.0));
    CLOSE(g / N, 0, e);
    CLOSE(gg / N, 1, e * sqrt(2.0));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(known_answers),
    cmocka_unit_test(keys_are_independent),
    cmocka_unit_test(moments_of_draws),
};
TEST_MAIN(tests)

/* Cutting a batch into slices, and sharing them out. */
#include "support/harness.h"

#include <string.h>

#include "norm/scope.h"

static const int64_t norm_batches[] = {SBN_NORM_BATCH_ALL, 1, 2, 5, 16, 17, 48};
enum { NORM_BATCHES = sizeof norm_batches / sizeof *norm_batches, MOST = 200 };

static void slices_cover_a_batch(void **state)
{
    (void)state;
    for (int64_t total = 0; total <= MOST; total++)
        for (int k = 0; k < NORM_BATCHES; k++) {
            int64_t m = norm_batches[k], at = 0;
            sbni_slice slices[MOST];
            int64_t count = sbni_scope_cut(0, total, m, slices);
            assert_int_equal(count, sbni_scope_cut(0, total, m, NULL));
            for (int64_t i = 0; i < count; i++) {
                assert_int_equal(slices[i].row, at);
                assert_in_range(slices[i].n, 1, SBN_SLICE);
                int64_t last = at + slices[i].n - 1, which = m ? at / m : 0;
                assert_int_equal(slices[i].norm_batch, which);
                assert_int_equal(m ? last / m : 0, which);
                /* shorter only where a norm batch or the batch ends */
                int64_t end = last + 1;
                assert_true(slices[i].n == SBN_SLICE || end == total ||
                            (m && end % m == 0));
                assert_true(which < sbni_scope_norm_batches(total, m));
                at = end;
            }
            assert_int_equal(at, total);
            if (m)
                assert_int_equal(sbni_scope_norm_batches(total, m), (total + m - 1) / m);
        }
}

/* The slices of a share are slices of the batch, moved to the share's first row. */
static void check_share(int64_t total, int64_t m, int64_t first, int64_t n,
                        const sbni_slice *whole, int64_t *next)
{
    sbni_slice own[MOST];
    int64_t count = sbni_scope_cut(first, n, m, own);
    for (int64_t i = 0; i < count; i++, ++*next) {
        assert_int_equal(own[i].row + first, whole[*next].row);
        assert_int_equal(own[i].n, whole[*next].n);
        assert_int_equal(own[i].norm_batch, whole[*next].norm_batch);
    }
    assert_true(first + n <= total);
}

static void shares_are_whole_slices_without_overlap(void **state)
{
    (void)state;
    for (int64_t total = 0; total <= MOST; total++)
        for (int k = 0; k < NORM_BATCHES; k++)
            for (int size = 1; size <= 9; size++) {
                int64_t m = norm_batches[k], at = 0, next = 0, least = MOST, most = 0;
                sbni_slice whole[MOST];
                int64_t count = sbni_scope_cut(0, total, m, whole);
                for (int rank = 0; rank < size; rank++) {
                    int64_t first, n, before = next;
                    sbni_scope_share(total, m, rank, size, &first, &n);
                    assert_int_equal(first, at);
                    assert_true(n >= 0);
                    check_share(total, m, first, n, whole, &next);
                    at += n;
                    least = next - before < least ? next - before : least;
                    most = next - before > most ? next - before : most;
                }
                assert_int_equal(at, total);
                assert_int_equal(next, count);
                assert_true(most - least <= 1); /* slices are dealt evenly */
            }
}

/* A norm batch may be larger than the batch, and a share may begin anywhere. */
static void odd_places(void **state)
{
    (void)state;
    int64_t first, n;
    sbni_scope_share(20, 48, 1, 2, &first, &n);
    assert_int_equal(first, 16);
    assert_int_equal(n, 4);
    sbni_slice s[4];
    assert_int_equal(sbni_scope_cut(13, 20, 17, s), 3);
    const sbni_slice want[] = {{0, 3, 0}, {3, 1, 0}, {4, 16, 1}};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(s[i].row, want[i].row);
        assert_int_equal(s[i].n, want[i].n);
        assert_int_equal(s[i].norm_batch, want[i].norm_batch);
    }
    assert_int_equal(sbni_scope_cut(10, 10, SBN_NORM_BATCH_ALL, s), 2);
    assert_int_equal(s[0].n, 6);
    assert_int_equal(s[1].n, 4);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(slices_cover_a_batch),
    cmocka_unit_test(shares_are_whole_slices_without_overlap),
    cmocka_unit_test(odd_places),
};
TEST_MAIN(tests)

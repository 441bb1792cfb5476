#define _GNU_SOURCE /* RUSAGE_THREAD */
/* Groups: a communicator of their own, and one outcome for all. */
#include "support/harness.h"
#include "support/layer.h"

#include <mpi.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "comm/alike.h"
#include "comm/group.h"
#include "core/clock.h"
#include "norm/scope.h"

static void create_and_destroy(void **state)
{
    (void)state;
    sbn_group *g = NULL;
    OK(sbn_group_create(MPI_COMM_WORLD, &g));
    assert_int_equal(sbn_group_rank(g), test_rank);
    assert_int_equal(sbn_group_size(g), test_size);
    sbn_group_destroy(&g);
    assert_null(g);
    sbn_group_destroy(&g);
    sbn_group_destroy(NULL);
    OK(sbn_group_create(MPI_COMM_SELF, &g));
    assert_int_equal(sbn_group_rank(g), 0);
    assert_int_equal(sbn_group_size(g), 1);
    sbn_group_destroy(&g);
}

static void wrong_arguments(void **state)
{
    (void)state;
    sbn_group *g = test_group;
    FAILS(SBN_E_ARG, sbn_group_create(MPI_COMM_NULL, &g));
    assert_null(g);
    FAILS(SBN_E_ARG, sbn_group_create(MPI_COMM_WORLD, NULL));
    if (test_size < 2) return;
    MPI_Comm half, between;
    MPI_Comm_split(MPI_COMM_WORLD, test_rank % 2, test_rank, &half);
    MPI_Intercomm_create(half, 0, MPI_COMM_WORLD, 1 - test_rank % 2, 0, &between);
    FAILS(SBN_E_ARG, sbn_group_create(between, &g));
    MPI_Comm_free(&between);
    MPI_Comm_free(&half);
}

/* Same processes, another context: a message that waits in the caller's communicator is
 * not seen by the group's, and outlives it. */
static void the_communicator_is_a_duplicate(void **state)
{
    (void)state;
    sbn_group *g;
    OK(sbn_group_create(MPI_COMM_WORLD, &g));
    int relation, seen, value = 42, got = 0, next = (test_rank + 1) % test_size,
                        previous = (test_rank + test_size - 1) % test_size;
    MPI_Comm_compare(g->comm, MPI_COMM_WORLD, &relation);
    assert_int_equal(relation, MPI_CONGRUENT);
    MPI_Request request;
    MPI_Isend(&value, 1, MPI_INT, next, 3, MPI_COMM_WORLD, &request);
    MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, g->comm, &seen, MPI_STATUS_IGNORE);
    assert_false(seen);
    OK(sbn_group_agree(g, SBN_OK));
    sbn_group_destroy(&g);
    MPI_Recv(&got, 1, MPI_INT, previous, 3, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    assert_int_equal(got, 42);
}

/* An MPI failure in the group comes back as a status and does not end the job. */
static void errors_are_returned(void **state)
{
    (void)state;
    int value = 0;
    sbn_status status = sbni_mpi(
        MPI_Send(&value, 1, MPI_INT, test_size + 5, 0, test_group->comm), "MPI_Send");
    assert_int_equal(status, SBN_E_MPI);
    assert_ptr_equal(strstr(sbn_last_error(), "MPI_Send: "), sbn_last_error());
}

static void agree_on_success(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++) OK(sbn_group_agree(test_group, SBN_OK));
}

/* Every set of failing processes: each keeps its own status, the others hear of the
 * lowest. */
static void agree_on_failures(void **state)
{
    (void)state;
    for (int set = 1; set < 1 << test_size; set++) {
        int first = 0;
        while (!(set >> first & 1)) first++;
        sbn_status mine = SBN_OK;
        char text[64], want[96];
        snprintf(text, sizeof text, "text of process %d, set %d", test_rank, set);
        if (set >> test_rank & 1)
            mine = sbni_fail(test_rank == first ? SBN_E_DATA : SBN_E_IO, "%s", text);
        sbn_status got = sbn_group_agree(test_group, mine);
        if (mine != SBN_OK) {
            assert_int_equal(got, mine);
            assert_string_equal(sbn_last_error(), text);
            continue;
        }
        assert_int_equal(got, SBN_E_PEER);
        assert_int_equal(sbn_peer_status(), SBN_E_DATA);
        snprintf(want, sizeof want, "process %d: text of process %d, set %d", first,
                 first, set);
        assert_string_equal(sbn_last_error(), want);
    }
}

/* A text as long as there is room for, and a failure that is itself news of a peer. */
static void agree_passes_on_texts(void **state)
{
    (void)state;
    char text[2 * SBNI_ERROR_BYTES];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = 0;
    sbn_status mine = test_rank == 0 ? sbni_fail(SBN_E_ARG, "%s", text) : SBN_OK;
    sbn_status got = sbn_group_agree(test_group, mine);
    assert_int_equal(got, test_rank == 0 ? SBN_E_ARG : SBN_E_PEER);
    assert_in_range(strlen(sbn_last_error()), SBNI_ERROR_BYTES - 20,
                    SBNI_ERROR_BYTES - 1);
    mine = test_rank == 0 ? sbni_fail_peer(7, SBN_E_NONFINITE, "a loss") : SBN_OK;
    got = sbn_group_agree(test_group, mine);
    assert_int_equal(got, SBN_E_PEER);
    assert_int_equal(sbn_peer_status(), SBN_E_NONFINITE);
    assert_non_null(strstr(sbn_last_error(), "process 7: a loss"));
}

/* Times that this process went to sleep of itself; yielding a core does not count. */
static long sleeps(void)
{
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nvcsw;
}

/* As long as one process works, the others leave it their cores. */
static void agree_asleep(void **state)
{
    (void)state;
    static const double work_s = 0.3;
    for (int slow = 0; slow < test_size; slow++) {
        OK(sbn_group_agree(test_group, SBN_OK));
        double until_s = sbni_clock_s() + work_s;
        long before = sleeps();
        while (test_rank == slow && sbni_clock_s() < until_s) {
        }
        sbn_status mine = test_rank == slow ? sbni_fail(SBN_E_DATA, "slow") : SBN_OK;
        sbn_status got = sbni_group_agree_asleep(test_group, slow % 2 ? mine : SBN_OK);
        if (test_rank != slow) assert_true(sleeps() - before > 4);
        assert_true(sbni_clock_s() >= until_s || test_rank != slow);
        if (slow % 2)
            FAILS_ON(slow, SBN_E_DATA, got);
        else
            OK(got);
    }
}

static void same_and_different_values(void **state)
{
    (void)state;
    OK(sbni_group_check_same(test_group, INT64_MIN, "x"));
    OK(sbni_group_check_same(test_group, INT64_MAX, "x"));
    int64_t least, greatest;
    OK(sbni_group_range(test_group, test_rank ? test_rank : INT64_MIN, &least,
                        &greatest));
    assert_true(least == INT64_MIN);
    assert_true(greatest == (test_size > 1 ? test_size - 1 : INT64_MIN));
    if (test_size == 1) return;
    FAILS(SBN_E_MISMATCH, sbni_group_check_same(test_group, test_rank - 1, "colour"));
    assert_ptr_equal(strstr(sbn_last_error(), "colour differs"), sbn_last_error());
}

static void broadcast(void **state)
{
    (void)state;
    for (int root = 0; root < test_size; root++) {
        int64_t data[100];
        for (int i = 0; i < 100; i++) data[i] = test_rank == root ? i * root : -1;
        OK(sbni_group_broadcast(test_group, data, sizeof data, root));
        for (int i = 0; i < 100; i++) assert_int_equal(data[i], i * root);
        OK(sbni_group_broadcast(test_group, NULL, 0, root));
    }
}

/* Colors and keys: who is with whom, in which order, and who is nowhere. */
static void split_by_color(void **state)
{
    (void)state;
    sbn_group *g;
    /* even and odd ranks, in reverse order */
    int others = (test_size + 1 - test_rank % 2) / 2;
    OK(sbn_group_split(MPI_COMM_WORLD, test_rank % 2, -test_rank, &g));
    assert_int_equal(sbn_group_size(g), others);
    assert_int_equal(sbn_group_rank(g), others - 1 - test_rank / 2);
    int64_t least, greatest;
    OK(sbni_group_range(g, test_rank % 2, &least, &greatest));
    assert_true(least == greatest && least == test_rank % 2);
    sbn_group_destroy(&g);
    /* groups of different sizes: process 0 alone, the others together */
    OK(sbn_group_split(MPI_COMM_WORLD, test_rank > 0, 0, &g));
    assert_int_equal(sbn_group_size(g), test_rank ? test_size - 1 : 1);
    assert_int_equal(sbn_group_rank(g), test_rank ? test_rank - 1 : 0);
    sbn_group_destroy(&g);
    /* the last process in no group */
    OK(sbn_group_split(MPI_COMM_WORLD, test_rank == test_size - 1 ? MPI_UNDEFINED : 7, 0,
                       &g));
    if (test_rank == test_size - 1) {
        assert_null(g);
    } else {
        assert_int_equal(sbn_group_size(g), test_size - 1);
        OK(sbn_group_agree(g, SBN_OK));
    }
    sbn_group_destroy(&g);
}

static void split_by_size(void **state)
{
    (void)state;
    for (int k = -1; k <= test_size + 1; k++) {
        sbn_group *g = test_group;
        if (k < 1 || test_size % k) {
            FAILS(SBN_E_ARG, sbn_group_split_size(MPI_COMM_WORLD, k, &g));
            assert_null(g);
            continue;
        }
        OK(sbn_group_split_size(MPI_COMM_WORLD, k, &g));
        assert_int_equal(sbn_group_size(g), k);
        assert_int_equal(sbn_group_rank(g), test_rank % k);
        int64_t least, greatest;
        OK(sbni_group_range(g, test_rank, &least, &greatest));
        assert_true(least == test_rank / k * k && greatest == least + k - 1);
        sbn_group_destroy(&g);
    }
}

/* One process's mistake is an error everywhere; nobody waits and nothing is made. */
static void split_errors(void **state)
{
    (void)state;
    sbn_group *g = test_group;
    for (int wrong = 0; wrong < test_size; wrong++) {
        bool me = test_rank == wrong;
        sbn_status want = me ? SBN_E_ARG : SBN_E_PEER;
        FAILS(want, sbn_group_split(MPI_COMM_WORLD, me ? -5 : 0, 0, &g));
        assert_null(g);
        assert_non_null(strstr(sbn_last_error(), "got -5"));
        FAILS(want, sbn_group_split(MPI_COMM_WORLD, 0, 0, me ? NULL : &g));
        FAILS(want, sbn_group_split_size(MPI_COMM_WORLD, 1, me ? NULL : &g));
        assert_null(g);
        if (test_size == 1) continue;
        FAILS(SBN_E_MISMATCH,
              sbn_group_split_size(MPI_COMM_WORLD, me ? test_size : 1, &g));
        assert_null(g);
        assert_non_null(strstr(sbn_last_error(), "group size differs"));
    }
    FAILS(SBN_E_ARG, sbn_group_split(MPI_COMM_NULL, 0, 0, &g));
    FAILS(SBN_E_ARG, sbn_group_split_size(MPI_COMM_NULL, 1, &g));
    OK(sbn_group_agree(test_group, SBN_OK));
}

/* Groups of k processes with a batch of their own each: y, dx, gradients and running
 * statistics are those of one process on that batch, whatever the other groups do. */
static void check_group_batch(sbn_group *group, uint64_t seed)
{
    sbn_group *self;
    OK(sbn_group_create(MPI_COMM_SELF, &self));
    joined b = joined_make(SBN_F32, (norm_case){50, 3, 1, 5, 0}, seed);
    sbn_norm_config cfg = joined_config(&b);
    int64_t first, n;
    sbni_scope_share(b.n, 0, sbn_group_rank(group), sbn_group_size(group), &first, &n);
    result part = result_run(&cfg, group, &b, first, n, 0),
           whole = result_run(&cfg, self, &b, 0, b.n, 0);
    result_equal(&b, &part, &whole);
    result_free(&part);
    result_free(&whole);
    joined_free(&b);
    sbn_group_destroy(&self);
}

static void trap_10_groups_normalize_their_own_data(void **state)
{
    (void)state;
    for (int k = 1; k <= test_size; k++) {
        if (test_size % k) continue;
        sbn_group *group;
        OK(sbn_group_split_size(MPI_COMM_WORLD, k, &group));
        check_group_batch(group, 20 + (uint64_t)(test_rank / k));
        sbn_group_destroy(&group);
    }
    sbn_group *uneven;
    OK(sbn_group_split(MPI_COMM_WORLD, test_rank > 0, -test_rank, &uneven));
    check_group_batch(uneven, 30 + (uint64_t)(test_rank > 0));
    sbn_group_destroy(&uneven);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(create_and_destroy),
    cmocka_unit_test(wrong_arguments),
    cmocka_unit_test(the_communicator_is_a_duplicate),
    cmocka_unit_test(errors_are_returned),
    cmocka_unit_test(agree_on_success),
    cmocka_unit_test(agree_on_failures),
    cmocka_unit_test(agree_passes_on_texts),
    cmocka_unit_test(agree_asleep),
    cmocka_unit_test(same_and_different_values),
    cmocka_unit_test(broadcast),
    cmocka_unit_test(split_by_color),
    cmocka_unit_test(split_by_size),
    cmocka_unit_test(split_errors),
    cmocka_unit_test(trap_10_groups_normalize_their_own_data),
};
TEST_MAIN(tests)

/* The promise: how a batch is shared among processes and threads does not show, and the
 * result is batch normalization. */
#include "support/harness.h"
#include "support/layer.h"

#include <mpi.h>
#include <omp.h>

#include "norm/norm.h"
#include "norm/scope.h"

static sbn_group *self;

static int make_self(void **state)
{
    (void)state;
    return sbn_group_create(MPI_COMM_SELF, &self) != SBN_OK;
}

static int64_t cached_bytes;

/* However small the tensors are. */
static int make_self_by_tiles(void **state)
{
    cached_bytes = sbni_norm_cached_bytes;
    sbni_norm_cached_bytes = 0;
    return make_self(state);
}

static int drop_self(void **state)
{
    (void)state;
    sbn_group_destroy(&self);
    return 0;
}

static int drop_self_by_tiles(void **state)
{
    sbni_norm_cached_bytes = cached_bytes;
    return drop_self(state);
}

static result whole_run(const joined *b)
{
    sbn_norm_config cfg = joined_config(b);
    return result_run(&cfg, self, b, 0, b->n, 0);
}

static void one_process_is_near_the_reference(void **state)
{
    (void)state;
    for (int k = 0; k < 2 * NORM_CASES; k++) {
        joined b = joined_make(k % 2 ? SBN_F64 : SBN_F32, norm_cases[k / 2], 1);
        result whole = whole_run(&b);
        naive want = joined_naive(&b, 1e-5);
        result_near(&b, &whole, &want);
        naive_free(&want);
        result_free(&whole);
        joined_free(&b);
    }
}

/* Whole slices, dealt evenly, all to one, one and the rest, at random: the same bits.
 * Also trap 32: a world of one takes no other path than a group of many. */
static void trap_32_any_deal_of_slices_gives_the_bits_of_one_process(void **state)
{
    (void)state;
    for (int k = 0; k < 2 * NORM_CASES; k++) {
        joined b = joined_make(k % 2 ? SBN_F64 : SBN_F32, norm_cases[k / 2], 2);
        sbn_norm_config cfg = joined_config(&b);
        result whole = whole_run(&b);
        for (int how = 0; how < DEALS; how++) {
            int64_t first, n;
            deal(how, b.n, b.norm_batch, test_rank, test_size, &first, &n);
            int flags = how == DEAL_DRAWN ? RUN_SPLIT : 0;
            result part = result_run(&cfg, test_group, &b, first, n, flags);
            result_equal(&b, &part, &whole);
            result_free(&part);
        }
        result_free(&whole);
        joined_free(&b);
    }
}

/* Shares that end inside slices, of 5, 1, 3, 2 rows and with other means: each sample
 * counts once (traps 1, 2), gradients are sums over the group (trap 3). */
static void check_rows(const int64_t rows[4], norm_case shape)
{
    shape.n = 0;
    int64_t first = 0;
    for (int r = 0; r < test_size; r++) {
        if (r < test_rank) first += rows[r];
        shape.n += rows[r];
    }
    if (shape.n * shape.h * shape.w < 2) return;
    for (int type = 0; type < 2; type++) {
        joined b = joined_make(type ? SBN_F64 : SBN_F32, shape, 3);
        int64_t row = b.c * b.h * b.w, at = 0;
        for (int r = 0; r < test_size; at += rows[r++] * row)
            for (int64_t e = at; e < at + rows[r] * row; e++) b.x_d[e] += 2 * r;
        joined_store(&b);
        sbn_norm_config cfg = joined_config(&b);
        result part = result_run(&cfg, test_group, &b, first, rows[test_rank], 0);
        naive want = joined_naive(&b, 1e-5);
        result_near(&b, &part, &want);
        naive_free(&want);
        result_free(&part);
        joined_free(&b);
    }
}

static void trap_01_02_03_uneven_shares(void **state)
{
    (void)state;
    check_rows((const int64_t[]){5, 1, 3, 2}, (norm_case){0, 7, 1, 1, 0});
    check_rows((const int64_t[]){5, 1, 3, 2}, (norm_case){0, 3, 1, 5, 0});
    check_rows((const int64_t[]){5, 1, 3, 2}, (norm_case){0, 3, 1, 5, 4});
    check_rows((const int64_t[]){40, 17, 0, 23}, (norm_case){0, 3, 5, 5, 0});
}

static void trap_08_36_no_or_one_row_on_a_process(void **state)
{
    (void)state;
    check_rows((const int64_t[]){0, 4, 0, 3}, (norm_case){0, 7, 1, 1, 0});
    check_rows((const int64_t[]){1, 0, 4, 0}, (norm_case){0, 7, 1, 5, 0});
    check_rows((const int64_t[]){0, 0, 0, 5}, (norm_case){0, 1, 1, 1, 0});
}

static void trap_09_one_row_per_process(void **state)
{
    (void)state;
    check_rows((const int64_t[]){1, 1, 1, 1}, (norm_case){0, 3, 1, 1, 0});
}

/* One layer, splits {3,1} then {1,3}, and a batch that is shorter though process 0 has
 * its 3 rows as before: counts are those of the call, not remembered. */
static void trap_11_counts_are_of_the_call(void **state)
{
    (void)state;
    static const int64_t rows[][4] = {
        {3, 1, 3, 1}, {1, 3, 1, 3}, {3, 3, 3, 3}, {3, 1, 1, 0}};
    joined b = joined_make(SBN_F64, (norm_case){12, 3, 1, 1, 0}, 4);
    sbn_norm_config cfg = joined_config(&b);
    sbn_norm *norm;
    OK(sbn_norm_create(&cfg, test_group, &norm));
    joined_load(&b, norm);
    sbn_norm_state s = sbn_norm_get_state(norm);
    double y[12 * 3], dx[12 * 3];
    for (int step = 0; step < 4; step++) {
        int64_t n = rows[step][test_rank], first = 0, total = 0;
        for (int r = 0; r < test_size; r++) {
            if (r < test_rank) first += rows[step][r];
            total += rows[step][r];
        }
        if (total < 2) continue;
        /* as a new layer's, which result_near wants */
        for (int64_t i = 0; i < b.c; i++) {
            set_element(b.dtype, s.running_mean, i, 0);
            set_element(b.dtype, s.running_var, i, 1);
        }
        sbn_tensor x = joined_view(&b, b.x, first, n), to = joined_view(&b, y, 0, n),
                   dy = joined_view(&b, b.dy, first, n), by = joined_view(&b, dx, 0, n);
        OK(sbn_norm_forward(norm, &x, &to));
        OK(sbn_norm_backward(norm, &dy, &by));
        joined cut = b;
        cut.n = total;
        naive want = joined_naive(&cut, cfg.eps);
        result got = {first,         n, y, dx, s.weight_grad, s.bias_grad, s.running_mean,
                      s.running_var, 0};
        result_near(&cut, &got, &want);
        naive_free(&want);
    }
    sbn_norm_destroy(&norm);
    joined_free(&b);
}

/* In halves, by the non-blocking sum, and with dx in place of dy: the bits of the
 * blocking call, and of one process. */
static void check_halves(norm_case shape, sbn_dtype dtype)
{
    joined b = joined_make(dtype, shape, 5);
    sbn_norm_config cfg = joined_config(&b);
    int64_t first, n;
    sbni_scope_share(b.n, b.norm_batch, test_rank, test_size, &first, &n);
    result blocking = result_run(&cfg, test_group, &b, first, n, 0),
           halves = result_run(&cfg, test_group, &b, first, n, RUN_SPLIT),
           in_place = result_run(&cfg, test_group, &b, first, n, RUN_IN_PLACE),
           whole = whole_run(&b);
    result_equal(&b, &halves, &blocking);
    result_equal(&b, &in_place, &blocking);
    result_equal(&b, &blocking, &whole);
    result_free(&blocking);
    result_free(&halves);
    result_free(&in_place);
    result_free(&whole);
    joined_free(&b);
}

/* Run by meson.build under every algorithm that Open MPI has for these sums: all
 * processes get the bits of one (trap 15), in halves too (trap 16). The long messages
 * (160 kB and 800 kB) are cut into segments by some. */
static void trap_15_16_all_ways_to_sum_agree(void **state)
{
    (void)state;
    for (int k = 0; k < 2 * NORM_CASES; k++)
        check_halves(norm_cases[k / 2], k % 2 ? SBN_F64 : SBN_F32);
    check_halves((norm_case){64, 500, 1, 1, 16}, SBN_F32);
    check_halves((norm_case){33, 10000, 1, 1, 0}, SBN_F64);
}

static void threads_do_not_show(void **state)
{
    (void)state;
    int before = omp_get_max_threads();
    for (int k = 0; k < 2 * NORM_CASES; k++) {
        joined b = joined_make(k % 2 ? SBN_F64 : SBN_F32, norm_cases[k / 2], 6);
        sbn_norm_config cfg = joined_config(&b);
        int64_t first, n;
        sbni_scope_share(b.n, b.norm_batch, test_rank, test_size, &first, &n);
        omp_set_num_threads(1);
        result one = result_run(&cfg, test_group, &b, first, n, 0);
        omp_set_num_threads(4);
        result four = result_run(&cfg, test_group, &b, first, n, 0);
        result_equal(&b, &four, &one);
        result_free(&one);
        result_free(&four);
        joined_free(&b);
    }
    omp_set_num_threads(before);
}

/* dx is not wanted on any process, or on process 0 alone: the message goes all the same
 * and dgamma, dbeta are right. */
static void trap_19_dx_not_wanted(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F32, (norm_case){40, 7, 1, 5, 0}, 7);
    sbn_norm_config cfg = joined_config(&b);
    result whole = whole_run(&b);
    int64_t first, n, channels = b.c * 4, row = b.c * b.h * b.w * 4;
    sbni_scope_share(b.n, 0, test_rank, test_size, &first, &n);
    for (int everywhere = 0; everywhere < 2; everywhere++) {
        int without = everywhere || test_rank == 0;
        result part = result_run(&cfg, test_group, &b, first, n, without ? RUN_NO_DX : 0);
        same_bits(part.dgamma, whole.dgamma, channels);
        same_bits(part.dbeta, whole.dbeta, channels);
        if (!without) same_bits(part.dx, (char *)whole.dx + first * row, n * row);
        result_free(&part);
    }
    result_free(&whole);
    joined_free(&b);
}

/* Two groups, even and odd processes, with other data: no message crosses. */
static void trap_10_two_groups(void **state)
{
    (void)state;
    MPI_Comm comm;
    MPI_Comm_split(MPI_COMM_WORLD, test_rank % 2, test_rank, &comm);
    sbn_group *group;
    OK(sbn_group_create(comm, &group));
    joined b =
        joined_make(SBN_F32, (norm_case){50, 3, 1, 5, 0}, 8 + (uint64_t)test_rank % 2);
    sbn_norm_config cfg = joined_config(&b);
    int64_t first, n;
    sbni_scope_share(b.n, 0, sbn_group_rank(group), sbn_group_size(group), &first, &n);
    result part = result_run(&cfg, group, &b, first, n, 0), whole = whole_run(&b);
    result_equal(&b, &part, &whole);
    result_free(&part);
    result_free(&whole);
    joined_free(&b);
    sbn_group_destroy(&group);
    MPI_Comm_free(&comm);
}

/* norm_batch m is a layer of m samples of its own: y and dx of each norm batch have the
 * bits of a local layer on those samples alone. */
static void ghost_is_local(void **state)
{
    (void)state;
    for (int k = 0; k < NORM_CASES; k++) {
        if (!norm_cases[k].norm_batch) continue;
        joined b = joined_make(SBN_F32, norm_cases[k], 10);
        result whole = whole_run(&b);
        int64_t row = b.c * b.h * b.w * 4;
        for (int64_t at = 0; at < b.n; at += b.norm_batch) {
            int64_t n = b.norm_batch < b.n - at ? b.norm_batch : b.n - at;
            joined alone = b;
            alone.norm_batch = 0;
            sbn_norm_config cfg = joined_config(&alone);
            result local = result_run(&cfg, self, &alone, at, n, 0);
            same_bits(local.y, (char *)whole.y + at * row, n * row);
            same_bits(local.dx, (char *)whole.dx + at * row, n * row);
            result_free(&local);
        }
        result_free(&whole);
        joined_free(&b);
    }
}

/* The same numbers as (n,c,h,w) and, pixels as rows, as (n·h·w, c). Sums group other
 * values, so the results agree within round-off of the reference. */
static void trap_20_images_and_rows(void **state)
{
    (void)state;
    for (int k = 0; k < NORM_CASES; k++) {
        norm_case shape = norm_cases[k];
        shape.norm_batch = 0;
        int64_t s = shape.h * shape.w;
        joined image = joined_make(SBN_F64, shape, 11);
        joined rows =
            joined_make(SBN_F64, (norm_case){shape.n * s, shape.c, 1, 1, 0}, 11);
        for (int64_t r = 0; r < shape.n; r++)
            for (int64_t i = 0; i < shape.c; i++)
                for (int64_t j = 0; j < s; j++) {
                    int64_t from = (r * shape.c + i) * s + j,
                            to = (r * s + j) * shape.c + i;
                    rows.x_d[to] = image.x_d[from];
                    rows.dy_d[to] = image.dy_d[from];
                }
        joined_store(&rows);
        result a = whole_run(&image), c = whole_run(&rows);
        naive want_a = joined_naive(&image, 1e-5), want_c = joined_naive(&rows, 1e-5);
        result_near(&image, &a, &want_a);
        result_near(&rows, &c, &want_c);
        for (int64_t i = 0; i < shape.c; i++)
            CLOSE((double)want_a.var[i], (double)want_c.var[i],
                  1e-16 * (double)want_a.var[i]);
        naive_free(&want_a);
        naive_free(&want_c);
        result_free(&a);
        result_free(&c);
        joined_free(&image);
        joined_free(&rows);
    }
}

static const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, make_self, drop_self)
#define TILED(name)                                                                      \
    {                                                                                    \
#name "_by_tiles", name, make_self_by_tiles, drop_self_by_tiles, NULL            \
    }
    CASE(one_process_is_near_the_reference),
    CASE(trap_32_any_deal_of_slices_gives_the_bits_of_one_process),
    CASE(trap_01_02_03_uneven_shares),
    TILED(one_process_is_near_the_reference),
    TILED(trap_32_any_deal_of_slices_gives_the_bits_of_one_process),
    TILED(trap_15_16_all_ways_to_sum_agree),
    TILED(threads_do_not_show),
    TILED(trap_19_dx_not_wanted),
    TILED(ghost_is_local),
    CASE(trap_08_36_no_or_one_row_on_a_process),
    CASE(trap_09_one_row_per_process),
    CASE(trap_11_counts_are_of_the_call),
    CASE(trap_15_16_all_ways_to_sum_agree),
    CASE(threads_do_not_show),
    CASE(trap_19_dx_not_wanted),
    CASE(trap_10_two_groups),
    CASE(ghost_is_local),
    CASE(trap_20_images_and_rows),
};
TEST_MAIN(tests)

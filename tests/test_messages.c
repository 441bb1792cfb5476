/* How many messages go, and of how many bytes: what the headers promise, counted. */
#include "support/count_mpi.h"
#include "support/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/layer.h"
#include "support/net.h"

/* An agreement that fails: 4 bytes, then a report from the lowest failing process. */
enum { AGREE = 4, REPORT = 520 };

/* Sends since count_start. A group of one has nobody to send to. */
static void expect(int allreduces, int iallreduces, int broadcasts, int64_t bytes)
{
    message_count got = count_read();
    bool alone = test_size == 1;
    assert_int_equal(got.allreduces, alone ? 0 : allreduces);
    assert_int_equal(got.iallreduces, alone ? 0 : iallreduces);
    assert_int_equal(got.broadcasts, alone ? 0 : broadcasts);
    assert_int_equal(got.bytes, alone ? 0 : bytes);
    assert_int_equal(got.others, 0);
    assert_int_equal(got.dups, 0);
    assert_false(got.in_place);
    count_start();
}

static int64_t forward_bytes(int64_t g, int64_t c)
{
    return 8 * (4 + g * (2 + 10 * c));
}

static int64_t backward_bytes(int64_t g, int64_t c)
{
    return 8 * (4 + g * (2 + 8 * c));
}

/* A layer for a batch of 40 samples, of which this process has a part. */
typedef struct setup {
    joined b;
    sbn_norm *norm;
    sbn_tensor x, y;
    void *out;
    int64_t first, n;
} setup;

static setup begin(sbn_norm_config *cfg, int64_t norm_batch)
{
    setup t = {
        .b = joined_make(cfg->dtype, (norm_case){40, cfg->channels, 1, 3, norm_batch}, 1),
        .first = 40 * test_rank / test_size,
        .n = 40 * (test_rank + 1) / test_size - 40 * test_rank / test_size};
    cfg->norm_batch = norm_batch;
    cfg->batch = 40;
    OK(sbn_norm_create(cfg, test_group, &t.norm));
    OK(sbn_norm_set_place(t.norm, t.first));
    t.out = calloc((size_t)(t.n * cfg->channels * 3) + 1, 8);
    t.x = joined_view(&t.b, t.b.x, t.first, t.n);
    t.y = joined_view(&t.b, t.out, 0, t.n);
    count_start();
    return t;
}

static void end(setup *t)
{
    sbn_norm_destroy(&t->norm);
    joined_free(&t->b);
    free(t->out);
}

/* One message each way per step, whole batch or norm batches, blocking or in halves. */
static void one_message_each_way(void **state)
{
    (void)state;
    static const int64_t channels[] = {1, 7, 100}, norm_batches[] = {0, 16, 40, 7};
    for (int k = 0; k < 2 * 3 * 4; k++) {
        int64_t c = channels[k / 2 % 3], m = norm_batches[k / 6],
                g = m ? (40 + m - 1) / m : 1;
        sbn_norm_config cfg = sbn_norm_config_default(c);
        cfg.dtype = k % 2 ? SBN_F64 : SBN_F32;
        setup t = begin(&cfg, m);
        for (int step = 0; step < 3; step++) {
            OK(sbn_norm_forward(t.norm, &t.x, &t.y));
            expect(1, 0, 0, forward_bytes(g, c));
            OK(sbn_norm_backward(t.norm, &t.x, step == 1 ? NULL : &t.y));
            expect(1, 0, 0, backward_bytes(g, c));
            OK(sbn_norm_forward_begin(t.norm, &t.x, &t.y));
            expect(0, 1, 0, forward_bytes(g, c));
            OK(sbn_norm_forward_end(t.norm));
            expect(0, 0, 0, 0);
            OK(sbn_norm_backward_begin(t.norm, &t.x, &t.y));
            expect(0, 1, 0, backward_bytes(g, c));
            OK(sbn_norm_backward_end(t.norm));
            expect(0, 0, 0, 0);
        }
        end(&t);
    }
}

static void renorm_costs_no_more(void **state)
{
    (void)state;
    sbn_norm_config cfg = sbn_norm_config_default(7);
    cfg.correction = SBN_CORRECTION_RENORM;
    cfg.r_max = cfg.d_max = 2;
    setup t = begin(&cfg, 16);
    OK(sbn_norm_forward(t.norm, &t.x, &t.y));
    expect(1, 0, 0, forward_bytes(3, 7));
    OK(sbn_norm_backward(t.norm, &t.x, &t.y));
    expect(1, 0, 0, backward_bytes(3, 7));
    end(&t);
}

/* No message with running statistics; with those of the batch one, as in training. */
static void evaluation(void **state)
{
    (void)state;
    for (int tracked = 0; tracked < 2; tracked++) {
        sbn_norm_config cfg = sbn_norm_config_default(7);
        cfg.track_running_stats = tracked;
        setup t = begin(&cfg, 0);
        sbn_norm_set_mode(t.norm, SBN_NORM_EVAL);
        OK(sbn_norm_forward(t.norm, &t.x, &t.y));
        expect(!tracked, 0, 0, tracked ? 0 : forward_bytes(1, 7));
        OK(sbn_norm_forward_begin(t.norm, &t.x, &t.y));
        OK(sbn_norm_forward_end(t.norm));
        expect(0, !tracked, 0, tracked ? 0 : forward_bytes(1, 7));
        end(&t);
    }
}

/* Reported by a process: one agreement more. Seen by all in the sums: nothing more. Wrong
 * order of calls: nothing at all. */
static void failures(void **state)
{
    (void)state;
    sbn_norm_config cfg = sbn_norm_config_default(7);
    setup t = begin(&cfg, 0);
    int last = test_rank == test_size - 1;
    FAILS(SBN_E_STATE, sbn_norm_backward(t.norm, &t.x, &t.y));
    expect(0, 0, 0, 0);
    sbn_tensor wrong = sbn_tensor_nchw(SBN_F32, t.x.data, t.n, last ? 6 : 7, 1, 3);
    FAILS(last ? SBN_E_ARG : SBN_E_PEER, sbn_norm_forward(t.norm, &wrong, &t.y));
    expect(2, 0, 1, forward_bytes(1, 7) + AGREE + REPORT);
    float *first = t.x.data, kept = *first;
    *first = last ? NAN : kept;
    FAILS(last ? SBN_E_NONFINITE : SBN_E_PEER, sbn_norm_forward(t.norm, &t.x, &t.y));
    expect(2, 0, 1, forward_bytes(1, 7) + AGREE + REPORT);
    *first = kept;
    OK(sbn_norm_forward(t.norm, &t.x, &t.y));
    count_start();
    FAILS(last ? SBN_E_ARG : SBN_E_PEER, sbn_norm_backward(t.norm, &wrong, &t.y));
    expect(2, 0, 1, backward_bytes(1, 7) + AGREE + REPORT);
    sbn_tensor one = sbn_tensor_nc(SBN_F32, t.x.data, last, 7),
               to = sbn_tensor_nc(SBN_F32, t.out, last, 7);
    FAILS(SBN_E_FEW, sbn_norm_forward(t.norm, &one, &to));
    expect(1, 0, 0, forward_bytes(1, 7));
    end(&t);
}

static void creation(void **state)
{
    (void)state;
    sbn_norm *norm;
    sbn_norm_config cfg = sbn_norm_config_default(901);
    count_start();
    OK(sbn_norm_create(&cfg, test_group, &norm));
    sbn_norm_destroy(&norm);
    assert_int_equal(count_read().dups, test_size > 1 ? 2 : 0); /* lengths that are new */
    count_start();
    OK(sbn_norm_create(&cfg, test_group, &norm));
    /* the comparison of settings does not ask how many processes there are */
    if (test_size > 1) expect(2, 0, 0, 20);
    sbn_norm_destroy(&norm);
    count_start();
    cfg.eps = test_rank == 0 ? -1 : cfg.eps;
    FAILS(test_rank == 0 ? SBN_E_ARG : SBN_E_PEER,
          sbn_norm_create(&cfg, test_group, &norm));
    expect(1, 0, 1, AGREE + REPORT);
    cfg.eps = test_rank == 0 ? 1e-4 : 1e-5;
    if (test_size == 1) return;
    FAILS(SBN_E_MISMATCH, sbn_norm_create(&cfg, test_group, &norm));
    /* then everybody's value is gathered, and told by the first that has it */
    message_count got = count_read();
    assert_int_equal(got.allreduces, 3);
    assert_int_equal(got.others, 1);
    assert_int_equal(got.broadcasts, 2);
    assert_int_equal(got.bytes, 20 + AGREE + 2 * 256);
    count_start();
    char want[64];
    snprintf(want, sizeof want, test_size > 2 ? " on processes 1%s%d" : " on process 1",
             test_size > 3 ? "-" : ", ", test_size - 1);
    assert_non_null(strstr(sbn_last_error(), " on process 0, "));
    assert_non_null(strstr(sbn_last_error(), want));
}

/* Calls out of order must not meet with different counts, which MPI libraries answer by
 * writing beyond buffers: no two lengths on one communicator, layers of one length on the
 * same, where their headers tell them apart. */
static void trap_17_no_two_lengths_meet(void **state)
{
    (void)state;
    static const int64_t channels[] = {3, 300, 3, 4};
    sbn_norm *norms[4];
    double *x = calloc(32 * 300 * 2, sizeof *x);
    assert_non_null(x);
    for (int i = 0; i < 4; i++) {
        sbn_norm_config cfg = sbn_norm_config_default(channels[i]);
        cfg.dtype = SBN_F64;
        cfg.second_order = true;
        OK(sbn_norm_create(&cfg, test_group, &norms[i]));
    }
    for (int i = 0; i < 4; i++) {
        sbn_tensor tx = sbn_tensor_nc(SBN_F64, x, 32, channels[i]),
                   ty = sbn_tensor_nc(SBN_F64, x + 32 * 300, 32, channels[i]);
        OK(sbn_norm_forward(norms[i], &tx, &ty));
        OK(sbn_norm_backward(norms[i], &tx, &ty));
        OK(sbn_norm_second_backward(norms[i], &tx, NULL, NULL, &ty, NULL, NULL));
        OK(sbn_norm_precise_begin(norms[i]));
        OK(sbn_norm_precise_add(norms[i], &tx));
        OK(sbn_norm_precise_end(norms[i]));
        sbn_norm_state state_i = sbn_norm_get_state(norms[i]);
        ((double *)state_i.running_mean)[0] = test_rank;
        OK(sbn_norm_merge(norms[i], test_group));
    }
    assert_false(count_read().mixed);
    for (int i = 0; i < 4; i++) sbn_norm_destroy(&norms[i]);
    free(x);
}

/* A net's norm layers, and the bytes of one training step. */
typedef struct step_cost {
    int norms;
    int64_t forward, backward, gradients;
} step_cost;

static step_cost cost_of(const sbn_model *model)
{
    int count;
    const sbn_model_tensor *t = sbn_model_tensors(model, &count);
    /* header, the loss's words, the number of correct samples, votes */
    step_cost cost = {.gradients = 8 * (4 + 6)};
    for (int i = 0; i < count; i++) {
        bool norm = strstr(t[i].name, "_bn") != NULL;
        if (norm && strstr(t[i].name, ".weight")) {
            cost.norms++;
            cost.forward += forward_bytes(1, t[i].count);
            cost.backward += backward_bytes(1, t[i].count);
        }
        if (!norm && t[i].grad) cost.gradients += 8 * (t[i].count + 1);
    }
    return cost;
}

/* One message per norm layer and way, one for all other gradients, or with overlap one
 * for those above each norm and one for those below; what overlaps does not block. Where
 * an exponent of the gradients' sums moves, as in the first step, backward runs again. */
static void check_net(const char *net, int norms, bool overlap)
{
    enum { BATCH = 48, STEPS = 4 };
    sbn_model_config cfg = sbn_model_config_default(net, BATCH);
    cfg.overlap = overlap ? SBN_OVERLAP_NETWORK : SBN_OVERLAP_NEVER;
    count_start();
    sbn_model *model = net_make(&cfg, test_group);
    if (test_size > 1) assert_int_equal(count_read().bytes, 40 + 20 * norms);
    assert_int_equal(count_read().others, 0);
    step_cost cost = cost_of(model);
    assert_int_equal(cost.norms, norms);
    int sums = overlap ? norms + 1 : 1, each = norms + sums; /* of backward */
    cost.gradients += (sums - 1) * 8 * 4;
    net_batch b = net_batch_make(model, BATCH, 3);
    int once = 0;
    for (int step = 0; step < STEPS; step++) {
        int n;
        int64_t *before = net_exponents(model, &n);
        sbn_model_result got;
        count_start();
        OK(net_gradient(model, SBN_F32, &b, BATCH, &got));
        int backward = count_read().allreduces + count_read().iallreduces - norms;
        int runs = backward / each;
        if (!memcmp(before, sbn_model_grad_exponents(model, &n), (size_t)n * 8)) {
            once++;
            runs = 1;
        }
        expect(norms + (overlap ? 0 : runs * each), overlap ? runs * each : 0, 0,
               cost.forward + runs * (cost.backward + cost.gradients));
        free(before);
    }
    assert_true(once >= STEPS - 1);
    uint64_t loss[4] = {0};
    int64_t correct = 0;
    OK(sbn_model_evaluate(model, b.labels, 2, loss, &correct));
    expect(0, 0, 0, 0);
    net_batch_free(&b);
    sbn_model_destroy(&model);
}

static void steps_of_nets(void **state)
{
    (void)state;
    for (int overlap = 0; overlap < 2; overlap++) {
        check_net("mlp", 3, overlap);
        check_net("cnn", 2, overlap);
        check_net("article", 2, overlap);
    }
}

/* The counter itself sees what the library calls and what it must not. */
static void the_counter_counts(void **state)
{
    (void)state;
    int in = 1, out;
    count_start();
    MPI_Allreduce(&in, &out, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    assert_false(count_read().in_place);
    MPI_Allreduce(MPI_IN_PLACE, &out, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    MPI_Barrier(MPI_COMM_WORLD);
    message_count got = count_read();
    assert_true(got.allreduces == 2 && got.bytes == 8 && got.others == 1 && got.in_place);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(the_counter_counts),
    cmocka_unit_test(one_message_each_way),
    cmocka_unit_test(renorm_costs_no_more),
    cmocka_unit_test(evaluation),
    cmocka_unit_test(failures),
    cmocka_unit_test(creation),
    cmocka_unit_test(trap_17_no_two_lengths_meet),
    cmocka_unit_test(steps_of_nets),
};

/* What MPI is given is counted, so all sums go by MPI. */
int main(int argc, char **argv)
{
    setenv("SBN_SUMS", "mpi", 1);
    return test_run(argc, argv, tests, sizeof tests / sizeof *tests);
}

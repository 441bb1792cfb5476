/* What a model holds, counted by hand; and that a step allocates nothing. */
#include "support/count_alloc.h"
#include "support/harness.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "support/net.h"
#include "syncbn/data.h"
#include "syncbn/optim.h"
#include "syncbn/trainer.h"

/* Convolutions with norm and relu behind them, and every other kind of layer. */
static const char *const net = "input 2x12x10\n"
                               "conv c1 out=5 kernel=3 pad=1\n"
                               "norm n1\n"
                               "relu\n"
                               "conv c2 out=7 kernel=3\n"
                               "norm n2\n"
                               "relu\n"
                               "maxpool size=2\n"
                               "dropout p=0.2\n"
                               "linear d1 out=9\n"
                               "sigmoid\n"
                               "linear d2 out=4\n"
                               "logsoftmax\n";

/* Two messages at once behind the first norm. */
static const char *const blocks_net = "input 2x12x10\n"
                                      "conv a out=3 kernel=3 pad=1\n"
                                      "norm n\n"
                                      "relu\n"
                                      "block b out=4 stride=2\n"
                                      "conv b1 out=4 kernel=3 stride=2 pad=1\n"
                                      "norm bn1\n"
                                      "relu\n"
                                      "conv b2 out=4 kernel=3 pad=1\n"
                                      "norm bn2\n"
                                      "end\n"
                                      "relu\n"
                                      "avgpool\n"
                                      "linear d out=4\n"
                                      "logsoftmax\n";

static sbn_optimizer *optimizer(const sbn_model *model)
{
    int n, params = 0;
    const sbn_model_tensor *t = sbn_model_tensors(model, &n);
    sbn_optimizer_tensor list[64];
    for (; params < n && t[params].grad; params++)
        list[params] =
            (sbn_optimizer_tensor){t[params].data, t[params].grad, t[params].count, true};
    sbn_optimizer_config cfg = {.momentum = 0.9, .dtype = SBN_F32};
    sbn_optimizer *sgd = NULL;
    OK(sbn_optimizer_create(&cfg, list, params, &sgd));
    return sgd;
}

/* From the first step on, at any size of the batch, with evaluation between. */
static void steps(sbn_model_config cfg, int threads)
{
    static const int64_t totals[] = {18, 64, 5, 60, 64, 37};
    omp_set_num_threads(threads);
    sbn_model *model = net_make(&cfg, test_group);
    sbn_optimizer *sgd = optimizer(model);
    net_batch b = net_batch_make(model, 64, 1);
    for (size_t i = 0; i < sizeof totals / sizeof *totals; i++) {
        sbn_model_result got;
        uint64_t loss[4] = {0};
        int64_t correct = 0;
        long before = alloc_count();
        OK(net_gradient(model, SBN_F32, &b, totals[i], &got));
        sbn_optimizer_step(sgd, 1, 0.05);
        OK(sbn_model_evaluate(model, b.labels, totals[i], loss, &correct));
        assert_int_equal(alloc_count() - before, 0);
    }
    net_batch_free(&b);
    sbn_optimizer_destroy(&sgd);
    sbn_model_destroy(&model);
    omp_set_num_threads(1);
}

static void steps_allocate_nothing(void **state)
{
    (void)state;
    static const int64_t norm_batches[] = {0, 10, 24};
    for (int k = 0; k < 2 * 2 * 3; k++) {
        sbn_model_config cfg = sbn_model_config_default("cnn", 64);
        cfg.overlap = k % 2 ? SBN_OVERLAP_ALWAYS : SBN_OVERLAP_NEVER;
        cfg.norm_batch = norm_batches[k / 4];
        int threads = 1 + k / 2 % 2;
        steps(cfg, threads);
        cfg.text = blocks_net;
        steps(cfg, threads);
        cfg.text = net;
        steps(cfg, threads);
        cfg.norm = SBN_MODEL_NORM_GROUP;
        steps(cfg, threads);
        cfg.norm = SBN_MODEL_NORM_RENORM;
        steps(cfg, threads);
    }
}

/* Allocations of a whole run without files. */
static long of_run(int64_t steps, sbn_overlap overlap)
{
    sbn_trainer_config cfg = sbn_trainer_config_default();
    cfg.data = "synthetic";
    cfg.limit_train = 150;
    cfg.limit_test = 20;
    cfg.batch = 64;
    cfg.steps = steps;
    cfg.checkpoint_every = 1000;
    cfg.progress = SBN_PROGRESS_NONE;
    cfg.overlap = overlap;
    sbn_trainer_result result;
    long before = alloc_count();
    OK(sbn_train(&cfg, test_group, &result));
    return alloc_count() - before;
}

/* An epoch has 3 steps; a run over two begins anew once. */
static void longer_runs_allocate_no_more(void **state)
{
    (void)state;
    /* the group keeps the rows that it counts messages in */
    of_run(1, SBN_OVERLAP_ALWAYS);
    for (sbn_overlap overlap = SBN_OVERLAP_NEVER; overlap <= SBN_OVERLAP_ALWAYS;
         overlap++) {
        long one = of_run(1, overlap);
        assert_true(one > 0);
        assert_int_equal(of_run(3, overlap), one);
    }
}

/* The counter sees what the library allocates. */
static void the_counter_counts(void **state)
{
    (void)state;
    long before = alloc_count();
    sbn_model_config cfg = sbn_model_config_default("cnn", 64);
    sbn_model *model = net_make(&cfg, test_group);
    assert_true(alloc_count() - before > 20);
    sbn_model_destroy(&model);
}

static sbn_model_memory memory_of(sbn_model_config cfg, int64_t *rows)
{
    sbn_model *model = net_make(&cfg, test_group);
    sbn_model_memory memory = sbn_model_get_memory(model);
    sbn_model_input(model, rows);
    sbn_model_destroy(&model);
    return memory;
}

/* Of a sum with its header of 4: what is sent, and received but in one process. Through
 * memory twice as much to send; of a long one all receive one together. */
static int64_t message_bytes(int64_t payload)
{
    int64_t words = 4 + payload;
    if (test_size == 1) return 8 * words;
    bool together = test_size * words > 8192;
    return 8 * (2 * words + (together ? (words + test_size - 1) / test_size : words));
}

static void cnn_by_hand(void **state)
{
    (void)state;
    sbn_model_config cfg = sbn_model_config_default("cnn", 256);
    int64_t rows;
    /* on one host nothing overlaps by itself */
    sbn_model_memory usual = memory_of(cfg, &rows);
    cfg.overlap = SBN_OVERLAP_ALWAYS;
    sbn_model_memory m = memory_of(cfg, &rows);
    if (test_size == 1) assert_int_equal(rows, 256 + 16);
    /* image, x of conv2, of conv2_bn, of dense1, of dense1_bn, last; x of dense2, behind
     * a norm, is made again */
    int64_t kept = 28 * 28 + 10 * 12 * 12 + 20 * 8 * 8 + 20 * 4 * 4 + 50 + 10;
    int64_t maxima = 10 * 12 * 12 + 20 * 4 * 4;
    assert_int_equal(m.activations_bytes, rows * (4 * kept + maxima));
    int64_t weights = 10 * 25 + 10 + 20 * 250 + 20 + 50 * 320 + 50 + 10 * 50 + 10;
    int64_t affine = 2 * (20 + 50);
    /* tensors begin on cache lines of 64 bytes */
    int64_t padded = 4 * (256 + 16 + 5008 + 32 + 16000 + 64 + 512 + 16 + 2 * 32 + 2 * 64);
    assert_int_equal(m.gradients_bytes, padded);
    assert_int_equal(m.parameters_bytes, padded + 4 * affine);
    /* exact sums: 10 words a channel forward, 8 backward, with 2 beside them; of weights'
     * and biases' gradients by layers, with each tensor's verdict; with those of the
     * last, loss, number of correct ones and votes */
    const int64_t norms = message_bytes(2 + 10 * 20) + message_bytes(2 + 8 * 20) +
                          message_bytes(2 + 10 * 50) + message_bytes(2 + 8 * 50),
                  convs = 260 + 5020 + 4, dense1 = 16050 + 2, dense2 = 510 + 2 + 6;
    assert_int_equal(convs + dense1 + dense2, weights + 8 + 6);
    int64_t gradients = test_size == 1 ? message_bytes(weights + 8 + 6)
                                       : message_bytes(convs) + message_bytes(dense1) +
                                             message_bytes(dense2);
    assert_int_equal(m.messages_bytes, norms + gradients);
    cfg.overlap = SBN_OVERLAP_NEVER;
    sbn_model_memory blocking = memory_of(cfg, &rows);
    assert_memory_equal(&usual, &blocking, sizeof usual);
    assert_int_equal(blocking.activations_bytes, m.activations_bytes);
    assert_int_equal(blocking.messages_bytes, norms + message_bytes(weights + 8 + 6));
    assert_true(blocking.work_bytes <= m.work_bytes);
}

/* Of conv, norm and relu only the norm's x stays; without the norm, or with group norm in
 * its place, more does. */
static void one_tensor_for_conv_norm_relu(void **state)
{
    (void)state;
    sbn_model_config cfg = sbn_model_config_default("test", 64);
    cfg.text = net;
    int64_t rows;
    int64_t x = 2 * 12 * 10, c1 = 5 * 12 * 10, c2 = 7 * 10 * 8, pool = 7 * 5 * 4, d1 = 9,
            last = 4, bytes = pool + (pool + 7) / 8; /* maxima, mask of dropout */
    sbn_model_memory m = memory_of(cfg, &rows);
    assert_int_equal(m.activations_bytes,
                     rows * (4 * (x + c1 + c2 + pool + d1 + last) + bytes));
    cfg.dtype = SBN_F64;
    m = memory_of(cfg, &rows);
    assert_int_equal(m.activations_bytes,
                     rows * (8 * (x + c1 + c2 + pool + d1 + last) + bytes));
    cfg.dtype = SBN_F32;
    cfg.norm = SBN_MODEL_NORM_GROUP; /* x of each norm, y of each relu, means and rstd */
    m = memory_of(cfg, &rows);
    assert_int_equal(m.activations_bytes,
                     rows * (4 * (x + 2 * c1 + 2 * c2 + pool + d1 + last) + bytes +
                             2 * 2 * (int64_t)sizeof(double)));
}

/* x of each norm, what goes into each block, and what is added from beside a block only
 * as x of its norm; y of the last two is made again. */
static void resnet8_by_hand(void **state)
{
    (void)state;
    sbn_model_config cfg = sbn_model_config_default("resnet8", 64);
    int64_t rows, stem = 16 * 28 * 28, two = 32 * 14 * 14, three = 64 * 7 * 7;
    sbn_model_memory m = memory_of(cfg, &rows);
    int64_t image = 28 * 28, norms = 3 * stem + 3 * two + 3 * three,
            blocks = 2 * stem + two, ends = 64 + 10;
    assert_int_equal(m.activations_bytes, rows * 4 * (image + norms + blocks + ends));
    cfg.norm =
        SBN_MODEL_NORM_NONE; /* y of each relu, and what an add may not overwrite */
    m = memory_of(cfg, &rows);
    int64_t relus = 3 * stem + 2 * two + 2 * three;
    assert_int_equal(m.activations_bytes, rows * 4 * (image + relus + ends));
}

/* Bytes that one more thread works in. */
static int64_t of_a_thread(const char *text)
{
    sbn_model_config cfg = sbn_model_config_default("test", 16);
    int64_t rows, work[2];
    int before = omp_get_max_threads();
    cfg.text = text;
    for (int t = 0; t < 2; t++) {
        omp_set_num_threads(t + 1);
        work[t] = memory_of(cfg, &rows).work_bytes;
    }
    omp_set_num_threads(before);
    return work[1] - work[0];
}

/* A thread sums gradients in as much as the largest weight takes, of which a block has
 * none. */
static void a_block_has_no_weight(void **state)
{
    (void)state;
    int64_t block = of_a_thread("input 8x32x32\n"
                                "block b out=64 stride=2\n"
                                "conv c1 out=64 kernel=3 stride=2 pad=1\n"
                                "norm n1\n"
                                "end\n"
                                "avgpool\n"
                                "linear d out=4\n"
                                "logsoftmax\n"),
            plain = of_a_thread("input 8x32x32\n"
                                "conv c1 out=64 kernel=3 stride=2 pad=1\n"
                                "norm n1\n"
                                "avgpool\n"
                                "linear d out=4\n"
                                "logsoftmax\n"),
            image = 8 * 32 * 32;
    assert_true(block - plain < 4 * (image + 1) * 64);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_block_has_no_weight),
    cmocka_unit_test(the_counter_counts),
    cmocka_unit_test(steps_allocate_nothing),
    cmocka_unit_test(longer_runs_allocate_no_more),
    cmocka_unit_test(cnn_by_hand),
    cmocka_unit_test(resnet8_by_hand),
    cmocka_unit_test(one_tensor_for_conv_norm_relu),
};
TEST_MAIN(tests)

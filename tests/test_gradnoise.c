/* Estimates of the noise of gradients are unbiased. */
#include "support/harness.h"
#include "support/net.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/gradnoise.h"

/* All batches of 4 from 3 samples, in two small batches: the means of the estimates are
 * |G|² and tr(Σ) of the 3 samples. Without norm their gradients are (p - onehot)·x'. */
static void estimates_are_unbiased(void **state)
{
    (void)state;
    enum { N = 3, IN = 4, OUT = 3, B = 4, HALF = 2, ALL = 81 };
    static const double x[N][IN] = {{1, -0.5, 2, 0}, {0.25, 1, -1, 3}, {-2, 0.5, 0.5, 1}};
    static const int32_t labels[N] = {0, 2, 2};
    sbn_group *alone;
    OK(sbn_group_create(MPI_COMM_SELF, &alone));
    sbn_model_config cfg = sbn_model_config_default("softmax", HALF);
    cfg.text = "input 1x2x2\nlinear d out=3\nlogsoftmax\n";
    cfg.dtype = SBN_F64;
    sbn_model *model = net_make(&cfg, alone);
    double *w = net_values(net_tensor(model, "d.weight"), SBN_F64),
           *bias = net_values(net_tensor(model, "d.bias"), SBN_F64);
    long double grad[N][OUT][IN + 1], mean_sq = 0, trace = 0;
    for (int k = 0; k < N; k++) {
        long double p[OUT], total = 0;
        for (int o = 0; o < OUT; o++) {
            long double z = bias[o];
            for (int i = 0; i < IN; i++) z += (long double)w[o * IN + i] * x[k][i];
            total += p[o] = expl(z);
        }
        for (int o = 0; o < OUT; o++)
            for (int i = 0; i <= IN; i++)
                grad[k][o][i] =
                    (p[o] / total - (o == labels[k])) * (i < IN ? x[k][i] : 1);
    }
    for (int o = 0; o < OUT; o++)
        for (int i = 0; i <= IN; i++) {
            long double mean = 0;
            for (int k = 0; k < N; k++) mean += grad[k][o][i] / N;
            mean_sq += mean * mean;
            for (int k = 0; k < N; k++)
                trace += (grad[k][o][i] - mean) * (grad[k][o][i] - mean) / N;
        }
    sbni_gradnoise noise;
    OK(sbni_gradnoise_create(model, &noise));
    long double found_sq = 0, found_trace = 0;
    for (int all = 0; all < ALL; all++) {
        sbni_gradnoise_clear(&noise);
        for (int at = 0, code = all; at < B; at += HALF) {
            int64_t capacity;
            double *input = sbn_model_input(model, &capacity);
            int32_t drawn[HALF];
            for (int k = 0; k < HALF; k++, code /= N) {
                memcpy(input + k * IN, x[code % N], sizeof x[0]);
                drawn[k] = labels[code % N];
            }
            sbn_model_result got;
            OK(sbn_model_gradient(model, drawn, HALF, &got));
            sbni_gradnoise_add(model, &noise);
        }
        sbni_noise_scale one = sbni_gradnoise_read(&noise, HALF);
        assert_int_equal(one.big, B);
        found_sq += one.grad_sq / (long double)ALL;
        found_trace += one.trace / (long double)ALL;
    }
    /* gradients come rounded to 2^-28 of the largest */
    CLOSE((double)found_sq, (double)mean_sq, 1e-7 * (double)(mean_sq + trace));
    CLOSE((double)found_trace, (double)trace, 1e-7 * (double)(mean_sq + trace));
    sbni_gradnoise_free(&noise);
    free(w);
    free(bias);
    sbn_model_destroy(&model);
    sbn_group_destroy(&alone);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(estimates_are_unbiased),
};
TEST_MAIN(tests)

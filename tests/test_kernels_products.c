/* Matrix products of the kernels, on every instruction set and type. */
#include "support/harness.h"
#include "support/tables.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "support/element.h"

typedef struct product {
    enum { PLAIN, TRANSPOSED, DOTS } kind; /* A as it is, A transposed, B transposed */
    int64_t m, n, k;
    bool adds;
} product;

static double product_a(sbn_dtype t, const product *of, const void *a, int64_t i,
                        int64_t p)
{
    return element(t, a, of->kind == TRANSPOSED ? p * of->m + i : i * of->k + p);
}

static double product_b(sbn_dtype t, const product *of, const void *b, int64_t p,
                        int64_t j)
{
    return element(t, b, of->kind == DOTS ? j * of->k + p : p * of->n + j);
}

static double fused(sbn_dtype t, double a, double b, double c)
{
    return t == SBN_F32 ? (double)fmaf((float)a, (float)b, (float)c) : fma(a, b, c);
}

/* In the order that is promised: what a processor without the instruction would give. */
static void product_in_order(sbn_dtype t, const product *of, const void *a, const void *b,
                             void *c)
{
    int64_t lanes = of->kind != DOTS ? 1 : t == SBN_F32 ? 8 : 4;
    for (int64_t e = 0; e < of->m * of->n; e++) {
        int64_t i = e / of->n, j = e % of->n;
        double before = of->adds ? element(t, c, e) : 0, chain[8] = {0};
        if (lanes == 1) chain[0] = before;
        for (int64_t p = 0; p < of->k; p++)
            chain[p % lanes] = fused(t, product_a(t, of, a, i, p),
                                     product_b(t, of, b, p, j), chain[p % lanes]);
        for (int64_t half = lanes / 2; half; half /= 2)
            for (int64_t l = 0; l < half; l++)
                chain[l] = as(t, chain[l] + chain[l + half]);
        set_element(t, c, e, lanes > 1 ? as(t, before + chain[0]) : chain[0]);
    }
}

/* Against sums in long double. */
static void check_product(const sbni_kernels *k, sbn_dtype t, const product *of)
{
    int64_t m = of->m, n = of->n;
    void *a = room(t, m * of->k), *b = room(t, of->k * n), *c = room(t, m * n);
    long double *want = calloc((size_t)(m * n), sizeof *want);
    double *size = calloc((size_t)(m * n), sizeof *size);
    draw(t, a, m * of->k, 0);
    draw(t, b, of->k * n, 1);
    draw(t, c, m * n, 2);
    for (int64_t e = 0; e < m * n; e++) {
        if (of->adds) want[e] = element(t, c, e), size[e] = fabs(element(t, c, e));
        for (int64_t p = 0; p < of->k; p++) {
            double x = product_a(t, of, a, e / n, p), y = product_b(t, of, b, p, e % n);
            want[e] += (long double)x * y;
            size[e] += fabs(x * y);
        }
    }
    if (!k->product)
        product_in_order(t, of, a, b, c);
    else if (of->kind == DOTS)
        k->product_of_rows(m, n, of->k, a, b, of->adds, c);
    else if (of->kind == TRANSPOSED)
        k->product(m, n, of->k, a, 1, m, b, of->adds, c);
    else
        k->product(m, n, of->k, a, of->k, 1, b, of->adds, c);
    for (int64_t e = 0; e < m * n; e++)
        CLOSE(element(t, c, e), (double)want[e],
              rounding(t) * (double)(of->k + 2) * size[e]);
    record(c, bytes_of(t, m * n));
    free(want);
    free(size);
    room_check(t, a, m * of->k);
    room_check(t, b, of->k * n);
    room_check(t, c, m * n);
}

static void products(const sbni_kernels *k, sbn_dtype t)
{
    static const int64_t widths[] = {1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 40, 67};
    for (int64_t m = 1; m <= 13; m += m < 7 ? 1 : 3)
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
            for (int64_t sum = 1; sum <= 37; sum += sum < 9 ? 1 : 7)
                for (int kind = 0; kind < 6; kind++)
                    check_product(k, t,
                                  &(product){kind / 2, m, widths[w], sum, kind % 2});
    check_product(k, t, &(product){PLAIN, 20, 64, 250, false});
    check_product(k, t, &(product){TRANSPOSED, 250, 64, 20, false});
    check_product(k, t, &(product){DOTS, 20, 250, 64, true});
}

static void walk_products(void **state)
{
    (void)state;
    each_table(products);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(walk_products)};
TEST_MAIN(tests)

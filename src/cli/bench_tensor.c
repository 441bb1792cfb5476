#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/bench.h"
#include "core/rng.h"

enum { PERIOD = 1000003 };

const char *const sbni_bench_layouts[] = {"nchw", "nhwc", "nc", NULL};
const char *const sbni_bench_dtypes[] = {"f32", "f64", "bf16", NULL};
const char *const sbni_bench_passes[] = {"forward", "backward", NULL};

void sbni_bench_print_shape(const sbni_bench_shape *shape, char *text)
{
    int at = 0;
    text[0] = 0;
    for (int i = 0; i < shape->axes; i++)
        at += snprintf(text + at, (size_t)(SBNI_BENCH_SHAPE_BYTES - at), "%s%" PRId64,
                       i ? "x" : "", shape->size[i]);
}

json_t *sbni_bench_shape_json(const sbni_bench_shape *shape)
{
    json_t *list = json_array();
    for (int i = 0; i < shape->axes; i++)
        json_array_append_new(list, json_integer(shape->size[i]));
    return list;
}

int64_t sbni_bench_elements(const sbni_bench_shape *shape)
{
    int64_t n = 1;
    for (int i = 0; i < shape->axes; i++)
        if (__builtin_mul_overflow(n, shape->size[i], &n)) return INT64_MAX;
    return n;
}

bool sbni_bench_fits(const sbni_bench_shape *shape, int layout)
{
    return (shape->axes == 2) == (layout == SBNI_BENCH_NC);
}

sbn_tensor sbni_bench_view(const sbni_bench_shape *shape, int layout, sbn_dtype dtype,
                           void *data)
{
    const int64_t *n = shape->size;
    if (layout == SBNI_BENCH_NC) return sbn_tensor_nc(dtype, data, n[0], n[1]);
    return layout == SBNI_BENCH_NCHW
               ? sbn_tensor_nchw(dtype, data, n[0], n[1], n[2], n[3])
               : sbn_tensor_nhwc(dtype, data, n[0], n[2], n[3], n[1]);
}

void sbni_bench_fill(void *data, sbn_dtype dtype, int64_t n, uint32_t which, double mean)
{
    sbni_rng_key key = {1, SBNI_RNG_TEST, which};
    int64_t size = sbn_dtype_bytes(dtype), drawn = n < PERIOD ? n : PERIOD;
    for (int64_t i = 0; i < drawn; i++) {
        double v = mean + sbni_rng_normal(key, (uint64_t)i, 0);
        float f = (float)v;
        uint32_t bits;
        memcpy(&bits, &f, sizeof bits);
        uint16_t half = (uint16_t)(bits >> 16);
        const void *from = dtype == SBN_F64   ? (const void *)&v
                           : dtype == SBN_F32 ? (const void *)&f
                                              : (const void *)&half;
        memcpy((char *)data + i * size, from, (size_t)size);
    }
    for (int64_t i = drawn; i < n; i += PERIOD) {
        int64_t count = n - i < PERIOD ? n - i : PERIOD;
        memcpy((char *)data + i * size, data, (size_t)(count * size));
    }
}

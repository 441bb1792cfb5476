#include "core/tensor.h"

#include <inttypes.h>
#include <stddef.h>

sbn_tensor sbn_tensor_ncdhw(sbn_dtype dtype, void *data, int64_t n, int64_t c, int64_t d,
                            int64_t h, int64_t w)
{
    /* unsigned, as nobody has checked the shape yet */
    int64_t s = (int64_t)((uint64_t)d * (uint64_t)h * (uint64_t)w);
    return (sbn_tensor){.data = data,
                        .dtype = dtype,
                        .n = n,
                        .c = c,
                        .d = d,
                        .h = h,
                        .w = w,
                        .stride_n = (int64_t)((uint64_t)c * (uint64_t)s),
                        .stride_c = s,
                        .stride_s = 1};
}

sbn_tensor sbn_tensor_nchw(sbn_dtype dtype, void *data, int64_t n, int64_t c, int64_t h,
                           int64_t w)
{
    return sbn_tensor_ncdhw(dtype, data, n, c, 1, h, w);
}

sbn_tensor sbn_tensor_nhwc(sbn_dtype dtype, void *data, int64_t n, int64_t h, int64_t w,
                           int64_t c)
{
    sbn_tensor t = sbn_tensor_ncdhw(dtype, data, n, c, 1, h, w);
    t.stride_c = 1;
    t.stride_s = c;
    return t;
}

sbn_tensor sbn_tensor_nc(sbn_dtype dtype, void *data, int64_t n, int64_t c)
{
    return sbn_tensor_nchw(dtype, data, n, c, 1, 1);
}

/* Step from pixel to pixel, 0 where rows and planes do not go on evenly. */
static int64_t pixel_stride(const int64_t shape[3], const int64_t strides[3])
{
    int64_t step = 0, inside = 1;
    for (int axis = 2; axis >= 0; axis--) {
        if (shape[axis] == 1) continue;
        int64_t expected;
        if (step == 0)
            step = strides[axis];
        else if (__builtin_mul_overflow(step, inside, &expected) ||
                 strides[axis] != expected)
            return 0;
        if (__builtin_mul_overflow(inside, shape[axis], &inside)) return 0;
    }
    return inside == 1 ? 1 : step;
}

sbn_tensor sbn_tensor_strided(sbn_dtype dtype, void *data, const int64_t shape[5],
                              const int64_t strides[5])
{
    sbn_tensor t =
        sbn_tensor_ncdhw(dtype, data, shape[0], shape[1], shape[2], shape[3], shape[4]);
    t.stride_n = strides[0];
    t.stride_c = strides[1];
    t.stride_s = pixel_stride(shape + 2, strides + 2);
    return t;
}

int64_t sbn_dtype_bytes(sbn_dtype dtype)
{
    return dtype == SBN_F64 ? 8 : dtype == SBN_BF16 ? 2 : 4;
}

bool sbni_tensor_is_dense(const sbn_tensor *t)
{
    int64_t s = sbni_tensor_s(t);
    return t->n == 0 ||
           ((s == 1 || t->stride_s == 1) && (t->c == 1 || t->stride_c == s) &&
            (t->n == 1 || t->stride_n == t->c * s));
}

bool sbni_tensor_has_planes(const sbn_tensor *t)
{
    return t->stride_s == 1 || sbni_tensor_s(t) == 1;
}

bool sbni_tensor_has_rows(const sbn_tensor *t)
{
    return t->stride_c == 1 || t->c == 1;
}

/* Axes by their strides, smallest first. */
static void sort_axes(const int64_t stride[3], int order[3])
{
    for (int i = 0; i < 3; i++) {
        int k = i;
        for (; k > 0 && stride[order[k - 1]] > stride[i]; k--) order[k] = order[k - 1];
        order[k] = i;
    }
}

/* Whether every axis steps over all of the axis inside it, so that no two elements share
 * a place, and the whole span can be counted in bytes. */
static bool nests(const int64_t extent[3], const int64_t stride[3])
{
    int order[3];
    sort_axes(stride, order);
    int64_t span = 1;
    for (int i = 0; i < 3; i++) {
        int axis = order[i];
        if (extent[axis] == 1) continue;
        if (stride[axis] < span ||
            __builtin_mul_overflow(stride[axis], extent[axis], &span) ||
            span > INT64_MAX / 16)
            return false;
    }
    return true;
}

static sbn_status check_strides(const sbn_tensor *t, const char *name)
{
    const int64_t extent[3] = {t->n, t->c, sbni_tensor_s(t)},
                  stride[3] = {t->stride_n, t->stride_c, t->stride_s};
    SBN_CHECK(extent[2] == 1 || t->stride_s > 0, SBN_E_ARG,
              "%s: the pixels are not evenly spaced in memory; copy the view first",
              name);
    SBN_CHECK(sbni_tensor_has_planes(t) || sbni_tensor_has_rows(t), SBN_E_ARG,
              "%s: expected neighbouring pixels or channels (stride 1), got strides of "
              "%" PRId64 " between channels and %" PRId64
              " between pixels; copy the view first",
              name, t->stride_c, t->stride_s);
    SBN_CHECK(nests(extent, stride), SBN_E_ARG,
              "%s: elements share places: %" PRId64 " samples, %" PRId64
              " channels, %" PRId64 " pixels with strides %" PRId64 ", %" PRId64
              ", %" PRId64,
              name, extent[0], extent[1], extent[2], stride[0], stride[1], stride[2]);
    return SBN_OK;
}

sbn_status sbni_tensor_check(const sbn_tensor *t, const char *name)
{
    SBN_CHECK(t != NULL, SBN_E_ARG, "%s: expected a tensor, got NULL", name);
    SBN_CHECK(t->dtype == SBN_F32 || t->dtype == SBN_F64 || t->dtype == SBN_BF16,
              SBN_E_ARG, "%s: unknown element type %d", name, (int)t->dtype);
    SBN_CHECK(t->n >= 0 && t->c >= 1 && t->d >= 1 && t->h >= 1 && t->w >= 1, SBN_E_ARG,
              "%s: expected n >= 0 and c, d, h, w >= 1, got (%" PRId64 ", %" PRId64
              ", %" PRId64 ", %" PRId64 ", %" PRId64 ")",
              name, t->n, t->c, t->d, t->h, t->w);
    int64_t count;
    SBN_CHECK(!__builtin_mul_overflow(t->d, t->h, &count) &&
                  !__builtin_mul_overflow(count, t->w, &count) &&
                  !__builtin_mul_overflow(count, t->c, &count) &&
                  !__builtin_mul_overflow(count, t->n, &count) && count <= INT64_MAX / 16,
              SBN_E_ARG, "%s: the shape overflows", name);
    if (count == 0) return SBN_OK;
    SBN_CHECK(t->data != NULL, SBN_E_ARG, "%s: expected data, got NULL", name);
    SBN_CHECK((uintptr_t)t->data % (uintptr_t)sbn_dtype_bytes(t->dtype) == 0, SBN_E_ARG,
              "%s: data is not aligned to its element", name);
    return check_strides(t, name);
}

sbn_status sbni_tensor_check_same(const sbn_tensor *a, const char *name_a,
                                  const sbn_tensor *b, const char *name_b)
{
    SBN_CHECK(a->dtype == b->dtype && a->n == b->n && a->c == b->c && a->d == b->d &&
                  a->h == b->h && a->w == b->w,
              SBN_E_ARG,
              "%s: expected type and shape of %s (%" PRId64 ", %" PRId64 ", %" PRId64
              ", %" PRId64 ", %" PRId64 "), got (%" PRId64 ", %" PRId64 ", %" PRId64
              ", %" PRId64 ", %" PRId64 ")%s",
              name_b, name_a, a->n, a->c, a->d, a->h, a->w, b->n, b->c, b->d, b->h, b->w,
              a->dtype == b->dtype ? "" : " of another type");
    return SBN_OK;
}

static bool same_place(const sbn_tensor *a, const sbn_tensor *b)
{
    return a->data == b->data && a->stride_n == b->stride_n &&
           a->stride_c == b->stride_c && a->stride_s == b->stride_s;
}

/* Whether two views of equal strides, `offset` elements apart, share one: whether steps
 * of fewer than `extent` along the axes lead from one to the other. As axes nest, what an
 * outer axis leaves over is less than its stride. */
static bool reaches(int64_t offset, const int64_t extent[3], const int64_t stride[3],
                    const int order[3], int axes)
{
    if (axes == 0) return offset == 0;
    int axis = order[axes - 1];
    if (extent[axis] == 1) return reaches(offset, extent, stride, order, axes - 1);
    int64_t steps = offset / stride[axis];
    for (int64_t k = steps - 1; k <= steps + 1; k++)
        if (k > -extent[axis] && k < extent[axis] &&
            reaches(offset - k * stride[axis], extent, stride, order, axes - 1))
            return true;
    return false;
}

static bool overlaps(const sbn_tensor *a, const sbn_tensor *b)
{
    if (a->n == 0 || b->n == 0) return false;
    const int64_t extent[3] = {a->n, a->c, sbni_tensor_s(a)},
                  stride_a[3] = {a->stride_n, a->stride_c, a->stride_s},
                  stride_b[3] = {b->stride_n, b->stride_c, b->stride_s};
    uintptr_t from_a = (uintptr_t)a->data, from_b = (uintptr_t)b->data,
              size = (uintptr_t)sbn_dtype_bytes(a->dtype), end_a = from_a + size,
              end_b = from_b + size;
    bool alike = true;
    for (int axis = 0; axis < 3; axis++) {
        if (extent[axis] == 1) continue;
        end_a += (uintptr_t)((extent[axis] - 1) * stride_a[axis]) * size;
        end_b += (uintptr_t)((extent[axis] - 1) * stride_b[axis]) * size;
        alike &= stride_a[axis] == stride_b[axis];
    }
    if (end_a <= from_b || end_b <= from_a) return false;
    if (!alike || (from_a - from_b) % size) return true; /* perhaps; nobody needs it */
    int order[3];
    sort_axes(stride_a, order);
    int64_t offset = ((int64_t)(from_a - from_b)) / (int64_t)size;
    return reaches(offset, extent, stride_a, order, 3);
}

sbn_status sbni_tensor_check_apart(const sbn_tensor *a, const char *name_a,
                                   const sbn_tensor *b, const char *name_b, bool same)
{
    if (same && same_place(a, b)) return SBN_OK;
    SBN_CHECK(!overlaps(a, b), SBN_E_ARG, "expected %s apart from %s%s", name_a, name_b,
              same ? ", or exactly in its place" : "");
    return SBN_OK;
}

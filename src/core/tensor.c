#include "core/tensor.h"

#include <inttypes.h>
#include <stddef.h>

sbn_tensor sbn_tensor_nchw(sbn_dtype dtype, void *data, int64_t n, int64_t c, int64_t h,
                           int64_t w)
{
    return (sbn_tensor){.data = data, .dtype = dtype, .n = n, .c = c, .h = h, .w = w};
}

sbn_tensor sbn_tensor_nc(sbn_dtype dtype, void *data, int64_t n, int64_t c)
{
    return sbn_tensor_nchw(dtype, data, n, c, 1, 1);
}

int64_t sbn_dtype_bytes(sbn_dtype dtype)
{
    return dtype == SBN_F64 ? 8 : 4;
}

sbn_status sbni_tensor_check(const sbn_tensor *t, const char *name)
{
    SBN_CHECK(t != NULL, SBN_E_ARG, "%s: expected a tensor, got NULL", name);
    SBN_CHECK(t->dtype == SBN_F32 || t->dtype == SBN_F64, SBN_E_ARG,
              "%s: unknown element type %d", name, (int)t->dtype);
    SBN_CHECK(t->n >= 0 && t->c >= 1 && t->h >= 1 && t->w >= 1, SBN_E_ARG,
              "%s: expected n >= 0 and c, h, w >= 1, got (%" PRId64 ", %" PRId64
              ", %" PRId64 ", %" PRId64 ")",
              name, t->n, t->c, t->h, t->w);
    int64_t count;
    SBN_CHECK(!__builtin_mul_overflow(t->n, t->c, &count) &&
                  !__builtin_mul_overflow(count, t->h, &count) &&
                  !__builtin_mul_overflow(count, t->w, &count) && count <= INT64_MAX / 8,
              SBN_E_ARG, "%s: the shape overflows", name);
    SBN_CHECK(count == 0 || t->data != NULL, SBN_E_ARG, "%s: expected data, got NULL",
              name);
    SBN_CHECK((uintptr_t)t->data % (uintptr_t)sbn_dtype_bytes(t->dtype) == 0, SBN_E_ARG,
              "%s: data is not aligned to its element", name);
    return SBN_OK;
}

sbn_status sbni_tensor_check_same(const sbn_tensor *a, const char *name_a,
                                  const sbn_tensor *b, const char *name_b)
{
    SBN_CHECK(a->dtype == b->dtype && a->n == b->n && a->c == b->c && a->h == b->h &&
                  a->w == b->w,
              SBN_E_ARG,
              "%s: expected type and shape of %s (%" PRId64 ", %" PRId64 ", %" PRId64
              ", %" PRId64 "), got (%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64
              ")%s",
              name_b, name_a, a->n, a->c, a->h, a->w, b->n, b->c, b->h, b->w,
              a->dtype == b->dtype ? "" : " of another type");
    return SBN_OK;
}

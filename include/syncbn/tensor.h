/** Views of memory: element type, shape, pointer. A view owns nothing. */
#ifndef SYNCBN_TENSOR_H
#define SYNCBN_TENSOR_H

#include <stdint.h>

#include "syncbn/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum sbn_dtype {
    SBN_F32, /**< IEEE binary32 */
    SBN_F64  /**< IEEE binary64 */
} sbn_dtype;

/**
 * A dense view, slowest axis first: n samples, c channels, h rows, w columns.
 * (n,c) data has h = w = 1. n may be 0, and then data may be NULL.
 */
typedef struct sbn_tensor {
    void
        *data; /**< n*c*h*w elements, owned by the caller, aligned for the element type */
    sbn_dtype dtype;
    int64_t n, c, h, w;
} sbn_tensor;

/** View of images, element (n,c,h,w) at ((n*C + c)*H + h)*W + w. The shape is checked
 * where it is used. */
SBN_API sbn_tensor sbn_tensor_nchw(sbn_dtype dtype, void *data, int64_t n, int64_t c,
                                   int64_t h, int64_t w);

/** View of feature rows, element (n,c) at n*C + c. */
SBN_API sbn_tensor sbn_tensor_nc(sbn_dtype dtype, void *data, int64_t n, int64_t c);

/** Bytes of one element: 4 or 8. */
SBN_API int64_t sbn_dtype_bytes(sbn_dtype dtype);

#ifdef __cplusplus
}
#endif
#endif

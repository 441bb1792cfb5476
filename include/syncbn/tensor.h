/** Views of memory: element type, shape, strides, pointer. A view owns nothing. */
#ifndef SYNCBN_TENSOR_H
#define SYNCBN_TENSOR_H

#include <stdint.h>

#include "syncbn/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum sbn_dtype {
    SBN_F32, /**< IEEE binary32 */
    SBN_F64, /**< IEEE binary64 */
    SBN_BF16 /**< bfloat16: the upper half of a binary32; storage only */
} sbn_dtype;

/**
 * A view of n samples, c channels, and d·h·w pixels of each channel.
 *
 * Element (n,c,p) lies at data[n·stride_n + c·stride_c + p·stride_s], pixels p counted
 * row by row. The layer takes views whose pixels or whose channels are neighbours
 * (stride_s or stride_c is 1), and in which no two elements share a place: one axis steps
 * over all of the axis inside it. So channels or samples cut out of a larger array are
 * fine; every second pixel, or a window cut out of an image, is refused: copy it first.
 */
typedef struct sbn_tensor {
    void *data; /**< owned by the caller, aligned for the element type; may be NULL when
                     n = 0 */
    sbn_dtype dtype;
    int64_t n, c, d, h, w;                /**< n ≥ 0, the others ≥ 1 */
    int64_t stride_n, stride_c, stride_s; /**< in elements; pixels that are not evenly
                                               spaced have stride_s 0, which is refused */
} sbn_tensor;

/** View of images, element (n,c,h,w) at ((n·C + c)·H + h)·W + w. Shapes are checked where
 * a view is used. */
SBN_API sbn_tensor sbn_tensor_nchw(sbn_dtype dtype, void *data, int64_t n, int64_t c,
                                   int64_t h, int64_t w);

/** View of images with channels last, element (n,c,h,w) at ((n·H + h)·W + w)·C + c. */
SBN_API sbn_tensor sbn_tensor_nhwc(sbn_dtype dtype, void *data, int64_t n, int64_t h,
                                   int64_t w, int64_t c);

/** View of volumes, element (n,c,d,h,w) at (((n·C + c)·D + d)·H + h)·W + w. */
SBN_API sbn_tensor sbn_tensor_ncdhw(sbn_dtype dtype, void *data, int64_t n, int64_t c,
                                    int64_t d, int64_t h, int64_t w);

/** View of feature rows, element (n,c) at n·C + c. */
SBN_API sbn_tensor sbn_tensor_nc(sbn_dtype dtype, void *data, int64_t n, int64_t c);

/**
 * View with any strides, in elements.
 * @param shape, strides  of n, c, d, h, w, in this order. An axis of length 1 may have
 * any stride.
 */
SBN_API sbn_tensor sbn_tensor_strided(sbn_dtype dtype, void *data, const int64_t shape[5],
                                      const int64_t strides[5]);

/** Bytes of one element: 4, 8 or 2. */
SBN_API int64_t sbn_dtype_bytes(sbn_dtype dtype);

#ifdef __cplusplus
}
#endif
#endif

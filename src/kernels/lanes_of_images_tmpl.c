#include "kernels/product_tmpl.h"

#ifdef SBNI_FUSES

/* Images of a slice side by side: each element of all of them as IMAGES neighbours, and
 * back. */
enum { IMAGES = SBNI_TILE_IMAGES };

/* Rows become columns. */
INLINE void turn_block(vdot *v)
{
#if defined __AVX__ && SBNI_TYPE_F64
    __m256d *a = (__m256d *)v, b[DOT];
    for (int k = 0; k < DOT; k += 2) {
        b[k] = _mm256_unpacklo_pd(a[k], a[k + 1]);
        b[k + 1] = _mm256_unpackhi_pd(a[k], a[k + 1]);
    }
    for (int k = 0; k < 2; k++) {
        a[k] = _mm256_permute2f128_pd(b[k], b[k + 2], 0x20);
        a[k + 2] = _mm256_permute2f128_pd(b[k], b[k + 2], 0x31);
    }
#elif defined __AVX__
    __m256 *a = (__m256 *)v, b[DOT];
#pragma GCC unroll 4
    for (int k = 0; k < DOT; k += 2) {
        b[k] = _mm256_unpacklo_ps(a[k], a[k + 1]);
        b[k + 1] = _mm256_unpackhi_ps(a[k], a[k + 1]);
    }
#pragma GCC unroll 2
    for (int k = 0; k < DOT; k += 4) {
        a[k] = _mm256_shuffle_ps(b[k], b[k + 2], 0x44);
        a[k + 1] = _mm256_shuffle_ps(b[k], b[k + 2], 0xee);
        a[k + 2] = _mm256_shuffle_ps(b[k + 1], b[k + 3], 0x44);
        a[k + 3] = _mm256_shuffle_ps(b[k + 1], b[k + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        __m256 low = a[k], high = a[k + 4];
        a[k] = _mm256_permute2f128_ps(low, high, 0x20);
        a[k + 4] = _mm256_permute2f128_ps(low, high, 0x31);
    }
#else
    T all[DOT][DOT], turned[DOT][DOT];
    memcpy(all, v, sizeof all);
    for (int i = 0; i < DOT; i++)
        for (int j = 0; j < DOT; j++) turned[j][i] = all[i][j];
    memcpy(v, turned, sizeof turned);
#endif
}

/* `len` <= DOT elements of `images` <= DOT images. */
INLINE void block_to_lanes(const T *x, int64_t apart, int images, int64_t len, T *to)
{
    vdot v[DOT];
    memset(v, 0, sizeof v);
#pragma GCC unroll 8
    for (int k = 0; k < DOT; k++)
        if (k < images) v[k] = load_dot(x + k * apart, len);
    turn_block(v);
#pragma GCC unroll 8
    for (int k = 0; k < DOT; k++)
        if (k < len) memcpy(to + k * IMAGES, &v[k], sizeof v[k]);
}

INLINE void block_of_lanes(const T *from, int64_t apart, int images, int64_t len, T *x)
{
    vdot v[DOT];
    memset(v, 0, sizeof v);
#pragma GCC unroll 8
    for (int k = 0; k < DOT; k++)
        if (k < len) memcpy(&v[k], from + k * IMAGES, sizeof v[k]);
    turn_block(v);
#pragma GCC unroll 8
    for (int k = 0; k < DOT; k++)
        if (k < images) {
            if (len == DOT)
                memcpy(x + k * apart, &v[k], sizeof v[k]);
            else
                for (int64_t j = 0; j < len; j++) x[k * apart + j] = ((T *)&v[k])[j];
        }
}

/* A run of elements of some images. Its last few are made up to DOT by those before. */
INLINE void run_to_lanes(const T *x, int64_t apart, int images, int64_t len, T *to)
{
    int64_t j = 0;
    for (; j + DOT <= len; j += DOT)
        block_to_lanes(x + j, apart, images, DOT, to + j * IMAGES);
    if (j == len) return;
    if (len > DOT)
        block_to_lanes(x + len - DOT, apart, images, DOT, to + (len - DOT) * IMAGES);
    else
        block_to_lanes(x, apart, images, len, to);
}

INLINE void run_of_lanes(const T *from, int64_t apart, int images, int64_t len, T *x)
{
    int64_t j = 0;
    for (; j + DOT <= len; j += DOT)
        block_of_lanes(from + j * IMAGES, apart, images, DOT, x + j);
    if (j == len) return;
    if (len > DOT)
        block_of_lanes(from + (len - DOT) * IMAGES, apart, images, DOT, x + len - DOT);
    else
        block_of_lanes(from, apart, images, len, x);
}

typedef struct runs {
    int64_t count, len;       /* of an image: rows, or all of it where it has no frame */
    int64_t apart;            /* elements of an image */
    int64_t channel, row, at; /* in the lanes: elements of a channel's frame, of a row,
                                 and the first that is the image's */
    int64_t rows;             /* of a channel */
} runs;

static runs runs_of(sbni_image image, sbni_frame f)
{
    runs r = {image.c * image.h,   image.w, image.c * image.h * image.w, f.channel, f.w,
              f.pad * f.w + f.pad, image.h};
    if (f.w == image.w && f.h == image.h) r.len = r.apart, r.count = r.rows = 1;
    return r;
}

void K(images_to_lanes)(const void *xv, int64_t n, sbni_image image, sbni_frame frame,
                        void *lanes)
{
    runs r = runs_of(image, frame);
    if (frame.count > r.apart)
        memset(lanes, 0, (size_t)(frame.count * IMAGES) * sizeof(T));
    for (int64_t i = 0; i < r.count; i++)
        for (int64_t k = 0; k < IMAGES; k += DOT) {
            const T *x = (const T *)xv + k * r.apart + i * r.len;
            T *to = (T *)lanes + k +
                    (i / r.rows * r.channel + i % r.rows * r.row + r.at) * IMAGES;
            if (n - k >= DOT)
                run_to_lanes(x, r.apart, DOT, r.len, to);
            else
                run_to_lanes(x, r.apart, n > k ? (int)(n - k) : 0, r.len, to);
        }
}

void K(images_of_lanes)(const void *lanes, int64_t n, sbni_image image, sbni_frame frame,
                        void *xv)
{
    runs r = runs_of(image, frame);
    for (int64_t i = 0; i < r.count; i++)
        for (int64_t k = 0; k < n; k += DOT) {
            T *x = (T *)xv + k * r.apart + i * r.len;
            const T *from = (const T *)lanes + k +
                            (i / r.rows * r.channel + i % r.rows * r.row + r.at) * IMAGES;
            if (n - k >= DOT)
                run_of_lanes(from, r.apart, DOT, r.len, x);
            else
                run_of_lanes(from, r.apart, (int)(n - k), r.len, x);
        }
}

#endif

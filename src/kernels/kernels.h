/*
 * All loops over tensor elements, as tables of functions for each element type, from the
 * instruction set that suits the machine best. Kernels cannot fail, allocate or
 * communicate. `void` pointers are arrays of the table's element type T. Sums run in a
 * fixed order that no instruction set changes.
 */
#ifndef SBNI_KERNELS_H
#define SBNI_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "syncbn/tensor.h"

/* The samples of a slice, at least one. In all views of a call either the pixels of a
 * channel are neighbours, or the channels of a pixel; which of them decides the order of
 * sums. */
typedef struct sbni_block {
    const int64_t *rows; /* [n] places of the samples in the views, ascending */
    int64_t n, c, s;
    bool planes; /* pixels are neighbours: stride_s = 1, or s = 1 */
    bool past;   /* what is written is too much to stay in the cache */
    bool near;   /* what is read lies in a core's cache; these two leave no trace in the
                    values */
} sbni_block;

/* Where the elements lie, in elements of the storage type. */
typedef struct sbni_view {
    void *data;
    int64_t stride_n, stride_c, stride_s;
} sbni_view;

/* Statistics and factors of the channels of one norm batch, ready for use on elements of
 * type T. Mean and centre are sums of two T, so that x - mean is right to the last bit
 * when the mean is large. The centre is the mean where that is more than three deviations
 * from 0, else 0, so that nothing need be subtracted from x (double: always the mean):
 * centre_hi tells, as it is 0 of no other channel. */
typedef struct sbni_channels {
    void *mean_hi, *mean_lo;     /* [c] */
    void *centre_hi, *centre_lo; /* [c] */
    void *scale;                 /* [c] gamma·rstd·r, r = 1 without renorm */
    void *shift;                 /* [c] beta + gamma·d - scale·(mean - centre) */
    double *gamma_d, *rstd_d;    /* [c] not rounded to T; elements do without */
} sbni_channels;

/* Of channels; the mean is the sum of two. */
typedef struct sbni_statistics {
    const double *mean, *mean_low, *var; /* [c] */
} sbni_statistics;

/* What a layer does to xhat: gamma·(xhat·r + d) + beta. */
typedef struct sbni_affine {
    const void *gamma, *beta; /* [c] of T; NULL: 1 and 0 */
    const double *r, *d;      /* [c] of batch renormalization; NULL: 1 and 0 */
    double eps;               /* added to the variance */
} sbni_affine;

/* What y goes through in the same pass. Backward finds the sign of the sum anew. */
typedef struct sbni_fused {
    bool relu;
    const sbni_view *add; /* added before relu; NULL: nothing */
} sbni_fused;

/* dx = a·dy - b - k·(x - centre) */
typedef struct sbni_dx_factors {
    void *a, *b, *k; /* [c] */
} sbni_dx_factors;

/* Sums over a norm batch of n values per channel, and its means. */
typedef struct sbni_gradients {
    double n;
    const double *dy, *dy_xhat, *mean; /* [c] */
    const double *r;                   /* [c] as sbni_affine has it */
} sbni_gradients;

/* ddy = y_v·v + y_d·(x - mean) + y_1;  gx = x_v·v + x_dy·dy + x_d·(x - mean) + x_1 */
typedef struct sbni_second_factors {
    const void *y_v, *y_d, *y_1, *x_v, *x_dy, *x_d, *x_1; /* [c] */
} sbni_second_factors;

/* The kernels of normalization, for storage of one type; arithmetic is in T, the storage
 * type itself or float for bfloat16. */
typedef struct sbni_norm_kernels {
    /* Sums of a slice about its own pivot, Σ(x-p) and Σ(x-p)²: p is 0 or the first value
     * of the channel or, where that lies more than three deviations off, their mean
     * rounded to T. Out: [c] each. */
    void (*norm_moments)(const sbni_block *b, const sbni_view *x, double *pivot,
                         double *sum_d, double *sum_dd);
    /* Everything that ch points to. */
    void (*norm_factors)(int64_t c, const sbni_statistics *s, const sbni_affine *affine,
                         const sbni_channels *ch);
    /* y = (x - centre)·scale + shift, then what is fused; y may be x. */
    void (*norm_normalize)(const sbni_block *b, const sbni_view *x,
                           const sbni_channels *ch, const sbni_fused *fused,
                           const sbni_view *y);
    /* Σdy and Σdy·(x-mean) of a slice, dy as it is behind what is fused. Out: [c] each.
     */
    void (*norm_backward_sums)(const sbni_block *b, const sbni_view *dy,
                               const sbni_view *x, const sbni_channels *ch,
                               const sbni_fused *fused, double *sum_dy, double *sum_dy_d);
    /* Everything that f points to. */
    void (*norm_dx_factors)(int64_t c, const sbni_gradients *s, const sbni_channels *ch,
                            const sbni_dx_factors *f);
    /* dx, and dadd for what was added; NULL: not wanted. One of them may be dy. x NULL,
     * without relu: dx = a·dy. */
    void (*norm_backward_dx)(const sbni_block *b, const sbni_view *dy, const sbni_view *x,
                             const sbni_channels *ch, const sbni_dx_factors *f,
                             const sbni_fused *fused, const sbni_view *dx,
                             const sbni_view *dadd);
    /* Σv, Σv·(x-mean), Σv·dy of a slice. Out: [c] each. */
    void (*norm_second_sums)(const sbni_block *b, const sbni_view *v, const sbni_view *dy,
                             const sbni_view *x, const sbni_channels *ch, double *sum_v,
                             double *sum_v_d, double *sum_v_dy);
    /* ddy and gx; NULL: not wanted. */
    void (*norm_second_apply)(const sbni_block *b, const sbni_view *v,
                              const sbni_view *dy, const sbni_view *x,
                              const sbni_channels *ch, const sbni_second_factors *f,
                              const sbni_view *ddy, const sbni_view *gx);
    /* Zero the samples. */
    void (*norm_clear)(const sbni_block *b, const sbni_view *y);
} sbni_norm_kernels;

/* Words of exact sums (core/grid.h), of slices of values of one type T. */
typedef struct sbni_words_kernels {
    /* Add the sums of `slices` slices, arrays [slices][stride], of m[slices] values per
     * channel, to words [SBNI_MOMENT_WORDS][stride], of c channels: exact Σx, Σx². pivot
     * holds values of T. Returns SBNI_GRID_ flags; a flagged channel of a slice adds
     * nothing. The words do not depend on how slices are spread over calls. */
    int (*add_moments)(int64_t c, int64_t slices, int64_t stride, const double *m,
                       const double *pivot, const double *sum_d, const double *sum_dd,
                       uint64_t *words);
    /* Add factor[c]·v[slices][stride] (factor NULL: 1) to words [SBNI_SUM_WORDS][stride].
     */
    int (*add_sums)(int64_t c, int64_t slices, int64_t stride, const double *v,
                    const double *factor, uint64_t *words);

    /* mean, mean_low, var [c] of summed words [SBNI_MOMENT_WORDS][stride], n values per
     * channel in `slices` slices, with the bits of sbni_exact_moments (comm/exact.h).
     * Returns how many channels it leaves to that, as it is not certain of a rounding:
     * their var has its sign bit set. */
    int64_t (*read_moments)(int64_t c, int64_t stride, const uint64_t *words, int64_t n,
                            int64_t slices, double *mean, double *mean_low, double *var);
    /* v [c] of summed words [SBNI_SUM_WORDS][stride], with the bits of sbni_exact_sum.
     * Returns how many channels it leaves to that: their v is NaN. */
    int64_t (*read_sums)(int64_t c, int64_t stride, const uint64_t *words, double *v);
} sbni_words_kernels;

typedef struct sbni_image {
    int64_t c, h, w;
} sbni_image;

typedef struct sbni_window {
    int64_t kernel, stride, pad;
} sbni_window;

/* Where a convolution finds the windows of an image, `columns` in each of `rows`: side by
 * side in a row, rows `stride` elements apart, element p of a window offset[p] behind its
 * first. */
typedef struct sbni_windows {
    const int32_t *offset; /* [k] */
    int64_t k, rows, columns, stride;
} sbni_windows;

/* Channels of images, so many elements from one to the next. */
typedef struct sbni_planes {
    const void *data;
    int64_t image, channel;
} sbni_planes;

/* Gradients of the largest of each window of `kernel` each way: dy and argmax
 * [out][rows][columns]; place[argmax]: elements from a window's first to its largest. */
typedef struct sbni_pooled {
    const void *dy;
    const uint8_t *argmax;
    int64_t kernel, rows, columns;
    const int32_t *place; /* [kernel²] */
} sbni_pooled;

enum { SBNI_POOLED_ROW = 8, SBNI_POOLED_SUMS = 2 * 5 * SBNI_POOLED_ROW };

/* Where an image lies among zeros: `pad` of them above and before it, more behind. */
typedef struct sbni_frame {
    int64_t pad, h, w;
    int64_t channel, count; /* elements of a channel, of all */
} sbni_frame;

/* Tiles of a kernel of 3 or 5: elements down and across, so many points, too, and
 * outputs. Eight points each way would do with fewer products, but at twice the error. */
enum {
    SBNI_TILE_WIDTH = 6,
    SBNI_TILE_OUTPUTS_DOWN = 4,
    SBNI_TILE_MOST_DOWN = SBNI_TILE_OUTPUTS_DOWN + 5 - 1,
    SBNI_TILE_IMAGES = 16 /* side by side; where there are fewer the others are 0 */
};

static inline int64_t sbni_tile_height(int64_t kernel)
{
    return SBNI_TILE_OUTPUTS_DOWN + kernel - 1;
}

static inline int64_t sbni_tile_outputs_across(int64_t kernel)
{
    return SBNI_TILE_WIDTH + 1 - kernel;
}

static inline int64_t sbni_tile_points(int64_t kernel)
{
    return sbni_tile_height(kernel) * SBNI_TILE_WIDTH;
}

/* Tiles of an image: those of its frame [h][w] overlap by kernel - 1, their outputs lie
 * side by side. */
typedef struct sbni_tiles {
    int64_t kernel; /* 3 or 5 */
    int64_t rows, columns;
    int64_t h, w; /* so many outputs, and kernel - 1 */
} sbni_tiles;

static inline sbni_tiles sbni_tiles_of(int64_t kernel, int64_t rows, int64_t columns)
{
    return (sbni_tiles){kernel, rows, columns, rows * SBNI_TILE_OUTPUTS_DOWN + kernel - 1,
                        columns * sbni_tile_outputs_across(kernel) + kernel - 1};
}

/* Matrices, one at each point of tiles: elements from one to the next, and of their rows
 * and columns. */
typedef struct sbni_points {
    void *data;
    int64_t point, row, column;
} sbni_points;

/* The kernels of nets and their gradients: float and double. */
typedef struct sbni_kernels {
    const char *isa;

    /* Add round(g·scale) to words [n], or set them where it is the first; right while
     * |g·scale| < 2^51. Returns the largest |g|, NaN where any g is NaN. */
    double (*grad_quantize)(const void *g, int64_t n, double scale, bool first,
                            uint64_t *words);
    /* g = words·unit */
    void (*grad_dequantize)(const uint64_t *words, int64_t n, double unit, void *g);

    void (*relu)(const void *x, int64_t n, void *y); /* y may be x */
    void (*relu_backward)(const void *y, const void *dy, int64_t n, void *dx);
    void (*sigmoid)(const void *x, int64_t n, void *y);
    void (*sigmoid_backward)(const void *y, const void *dy, int64_t n, void *dx);

    void (*add)(const void *x, const void *z, int64_t n, void *y); /* y may be x or z */

    /* y = x·scale where the element's bit of kept is set, else x·0; y may be x. */
    void (*dropout)(const void *x, const uint8_t *kept, int64_t n, double scale, void *y);

    /* Group norm of samples x [n,c,s], each of whose `groups` groups of channels has its
     * own statistics; gamma, beta [c] or NULL for 1 and 0. Out: y, which may be x, and
     * mean, rstd [n][groups]. */
    void (*groupnorm)(const void *x, int64_t n, int64_t c, int64_t s, int64_t groups,
                      double eps, const void *gamma, const void *beta, double *mean,
                      double *rstd, void *y);
    /* dx, which may be dy or NULL; adds the samples' sums to dgamma, dbeta [c]. */
    void (*groupnorm_backward)(const void *dy, const void *x, int64_t n, int64_t c,
                               int64_t s, int64_t groups, const void *gamma,
                               const double *mean, const double *rstd, void *dx,
                               double *dgamma, double *dbeta);

    /* Largest of each window without overlap or padding, first one on ties, NaN wins.
     * argmax: its place in the window, row-major. */
    void (*maxpool)(const void *x, sbni_image in, int64_t kernel, void *y,
                    uint8_t *argmax);
    void (*maxpool_backward)(const void *dy, const uint8_t *argmax, sbni_image in,
                             int64_t kernel, void *dx);

    /* Mean of each window of kh x kw without overlap or padding. */
    void (*avgpool)(const void *x, sbni_image in, int64_t kh, int64_t kw, void *y);
    void (*avgpool_backward)(const void *dy, sbni_image in, int64_t kh, int64_t kw,
                             void *dx);

    /* col [c·kernel·kernel][oh·ow] of one image, zero where the window leaves it. */
    void (*im2col)(const void *x, sbni_image in, sbni_window win, void *col);
    /* dx = sum of the columns that show an element, in the order of col's rows. */
    void (*col2im)(const void *col, sbni_image in, sbni_window win, void *dx);

    /* y [c][s] += bias[c]; and dbias[c] += Σ dy[c][s]. */
    void (*bias_add)(void *y, int64_t c, int64_t s, const void *bias);
    void (*bias_grad)(const void *dy, int64_t c, int64_t s, void *dbias);
    /* Of rows: y [n][c] += bias[c]; dbias[c] = Σ dy[n][c]. */
    void (*bias_add_rows)(void *y, int64_t n, int64_t c, const void *bias);
    void (*bias_grad_rows)(const void *dy, int64_t n, int64_t c, void *dbias);

    /* C [m,n] = A·B, added to what C holds where `adds`: element (i,p) of A lies at
     * a[i·a_row + p·a_col], B [k,n] and C are row-major. An element is a chain of fused
     * multiply-adds in the order of p. For operands that lie in the cache. NULL, like all
     * that follow down to tiles_products, where the processor has no such instruction. */
    void (*product)(int64_t m, int64_t n, int64_t k, const void *a, int64_t a_row,
                    int64_t a_col, const void *b, bool adds, void *c);
    /* C [m,n] = A·B' of rows A [m,k], B [n,k]; of each sum every eighth product (fourth,
     * of doubles) is a chain, and the chains are added up as a fixed tree. */
    void (*product_of_rows)(int64_t m, int64_t n, int64_t k, const void *a, const void *b,
                            bool adds, void *c);

    /* Convolution: y [out][rows·columns] = W [out][k]·x + bias (NULL: none) of the
     * windows of x. An element is a chain of fused multiply-adds in the order of W's row,
     * its bias added behind: the bits of im2col, product and bias_add. */
    void (*convolve)(const sbni_windows *windows, const void *x, const void *weight,
                     const void *bias, int64_t out, void *y);
    /* Its dW [out][k] from n images x and dy, added to what dW holds where `adds`. Of
     * each sum every eighth column of windows (fourth, of doubles) is a chain, row by row
     * and image by image, and the chains are added up as a fixed tree. */
    void (*convolve_weights)(const sbni_windows *windows, int64_t n, const sbni_planes *x,
                             const sbni_planes *dy, int64_t out, bool adds,
                             void *dweight);

    /* dW of a convolution of kernel 3 or 5 with a maxpool behind it. An image's part, x
     * [c] channels apart with rows `stride` elements apart, readable for SBNI_POOLED_ROW
     * elements from the first of any window's row, is added to sums [out][c]
     * [SBNI_POOLED_SUMS]: even and odd columns of dy are a chain each, row by row. Then
     * dW of `count` sums. */
    void (*pooled_add)(const sbni_pooled *dy, int64_t c, int64_t channel, int64_t stride,
                       int64_t kernel, int64_t out, const void *x, void *sums);
    void (*pooled_dweights)(int64_t kernel, int64_t count, const void *sums,
                            void *dweight);

    /* Convolutions of stride 1 by tiles. All images of a slice lie side by side: arrays
     * are [c][h][w][SBNI_TILE_IMAGES]; what lies at one point is sbni_points_apart from
     * what lies at the next. */
    void (*images_to_lanes)(const void *x, int64_t n, sbni_image image, sbni_frame frame,
                            void *lanes);
    void (*images_of_lanes)(const void *lanes, int64_t n, sbni_image image,
                            sbni_frame frame, void *x);
    /* `count` windows [count][kernel][kernel] at the points: u [points][count]; and
     * gradients there as those of the windows. */
    void (*tiles_weights)(int64_t kernel, int64_t count, const void *weight, void *u);
    void (*tiles_dweights)(int64_t kernel, int64_t count, const void *du, void *dweight);
    /* Row r of tiles: v [points][c][columns][IMAGES] of x [c][h][w]; and the transpose of
     * that, dx, by rows from 0 on: each adds to what the one before has set. work
     * [height][w][IMAGES]. */
    void (*tiles_points)(const sbni_tiles *tiles, int64_t c, int64_t r, const void *x,
                         void *work, void *v);
    void (*tiles_add_points)(const sbni_tiles *tiles, int64_t c, int64_t r, const void *v,
                             void *work, void *dx);
    /* Tile j of row r: y of sums m [points][c][IMAGES], bias [c] added; and the transpose
     * without it, m of dy. y and dy hold all outputs of tiles. */
    void (*tiles_outputs)(const sbni_tiles *tiles, int64_t c, int64_t r, int64_t j,
                          const void *m, const void *bias, void *y);
    void (*tiles_of_outputs)(const sbni_tiles *tiles, int64_t c, int64_t r, int64_t j,
                             const void *dy, void *m);
    /* All tiles at row i of the points: v [WIDTH][c][rows·columns][IMAGES] of x, m of dy.
     */
    void (*tiles_row_points)(const sbni_tiles *tiles, int64_t c, int i, const void *x,
                             void *work, void *v);
    void (*tiles_row_of_outputs)(const sbni_tiles *tiles, int64_t c, int i,
                                 const void *dy, void *m);
    /* At each of `points` C [m][IMAGES] = A [m][k]·B [k][IMAGES]. An element is a chain
     * as that of product. */
    void (*tiles_products)(int64_t points, int64_t m, int64_t k, const sbni_points *a,
                           const sbni_points *b, const sbni_points *c);

    /* Rows [n,classes]: y = log softmax(x). */
    void (*log_softmax)(const void *x, int64_t n, int64_t classes, void *y);
    /* Of log-probabilities y: adds -y[label] to the returned sum, counts rows whose
     * largest value (first on ties) is the label; dx = (exp(y) - onehot)·weight unless
     * NULL. With smoothing s the target is (1-s)·onehot + s/classes, in both. */
    double (*nll)(const void *y, const int32_t *label, int64_t n, int64_t classes,
                  double smoothing, double weight, int64_t *correct, void *dx);

    /* v = momentum·v + g + decay·p;  p -= lr·(nesterov ? g + decay·p + momentum·v : v) */
    void (*sgd)(void *p, const void *g, void *v, int64_t n, double lr, double momentum,
                double decay, int nesterov);
    /* s = g + decay·p;  m = beta1·m + (1-beta1)·s;  v = beta2·v + (1-beta2)·s²;
     * p = shrink·p - rate·(m / (√v/root + eps)) */
    void (*adam)(void *p, const void *g, void *m, void *v, int64_t n, double beta1,
                 double beta2, double eps, double rate, double root, double decay,
                 double shrink);
} sbni_kernels;

/* The tables for this machine, words in the widest vectors that it has; the environment's
 * SBN_ISA=base|avx2|avx512 forces others. Local, thread-safe after the first call. */
const sbni_kernels *sbni_kernels_get(sbn_dtype dtype);
const sbni_norm_kernels *sbni_norm_kernels_get(sbn_dtype dtype);
const sbni_words_kernels *sbni_words_kernels_get(sbn_dtype dtype);

/* Instruction sets of this build that this machine can run, best first, NULL-terminated;
 * and the table of one of them. For tests and benchmarks. */
const char *const *sbni_kernels_isas(void);
const sbni_kernels *sbni_kernels_of(const char *isa, sbn_dtype dtype);
const sbni_norm_kernels *sbni_norm_kernels_of(const char *isa, sbn_dtype dtype);
const sbni_words_kernels *sbni_words_kernels_of(const char *isa, sbn_dtype dtype);

/* Elements from one point's sums to the next: images side by side an odd number of times,
 * as the lines that a tile touches would else drive each other out of the nearest
 * cache. */
static inline int64_t sbni_points_apart(int64_t c, int64_t tiles)
{
    return (c * tiles | 1) * SBNI_TILE_IMAGES;
}

static inline int64_t sbni_window_out(int64_t in, sbni_window win)
{
    return (in + 2 * win.pad - win.kernel) / win.stride + 1;
}

#endif

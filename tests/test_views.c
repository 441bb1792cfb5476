/* Layouts and strides: which numbers are the same, which neighbours stay untouched, and
 * which views are refused. */
#include "support/harness.h"
#include "support/seat.h"
#include "support/tables.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "norm/scope.h"

static seat share(const sbn_norm_config *cfg, const joined *b, layout form)
{
    int64_t first, n;
    sbni_scope_share(b->n, b->norm_batch, test_rank, test_size, &first, &n);
    return seat_make(cfg, test_group, b, form, first, n);
}

/* y and dx within round-off of the reference; those of bfloat16 round once more when they
 * are stored. */
static void near(const seat *s, const joined *b, const naive *want)
{
    sbn_dtype state = state_type(b->dtype);
    int64_t pixels = b->h * b->w;
    double unit = 8 * rounding(state) + 16 * (double)pixels * DBL_EPSILON / 2,
           store = b->dtype == SBN_BF16 ? rounding(SBN_BF16) : 0;
    for (int64_t r = 0; r < s->n; r++)
        for (int64_t e = 0; e < b->c * pixels; e++) {
            int64_t at = (s->first + r) * b->c * pixels + e, i = e / pixels;
            double y = (double)want->y[at], dx = (double)want->dx[at];
            CLOSE(tensor_get(&s->y, r, i, e % pixels), y,
                  unit * (double)want->y_size[at] + store * fabs(y));
            CLOSE(tensor_get(&s->dx, r, i, e % pixels), dx,
                  unit * (double)want->dx_size[at] + store * fabs(dx));
        }
    for (int64_t i = 0; i < b->c; i++) {
        CLOSE(element(state, s->state.weight_grad, i), (double)want->dgamma[i],
              unit * (double)want->dgamma_size[i]);
        CLOSE(element(state, s->state.bias_grad, i), (double)want->dbeta[i],
              unit * (double)want->dbeta_size[i]);
        double mean = (double)naive_track(0, want->mean[i], 0.1, 1),
               var = (double)naive_track(1, naive_unbiased(want, i), 0.1, 1);
        CLOSE(element(state, s->state.running_mean, i), mean,
              unit * (fabs(mean) + sqrt((double)want->var[i])));
        CLOSE(element(state, s->state.running_var, i), var, unit * var);
    }
}

/* Every channel count that is odd for a vector, rows and images, both layouts, all types,
 * with norm batches: right in each; the same bits where the layouts are one. */
static void trap_20_channels_last(void **state)
{
    (void)state;
    const int64_t channels[] = {1, 3, 7, 100}, pixels[] = {1, 5};
    for (int k = 0; k < 4 * 2 * 3 * 2; k++) {
        norm_case shape = {37, channels[k % 4], 1, pixels[k / 4 % 2], k / 24 ? 17 : 0};
        joined b = joined_make((sbn_dtype)(k / 8 % 3), shape, 121);
        sbn_norm_config cfg = joined_config(&b);
        seat first = share(&cfg, &b, NCHW), last = share(&cfg, &b, NHWC);
        seat_step(&first, false);
        seat_step(&last, false);
        naive want = joined_naive(&b, cfg.eps);
        near(&first, &b, &want);
        near(&last, &b, &want);
        if (shape.c == 1 || shape.w == 1) {
            seat_same_samples(&last, &first, 0, false);
            seat_same_state(&last, &first);
        }
        naive_free(&want);
        seat_free(&first);
        seat_free(&last);
        joined_free(&b);
    }
}

/* bfloat16 is storage: the statistics are those of the float32 layer on the same values,
 * to the bit, and so are y and dx before they are stored. */
static void bfloat16_is_rounded_float32(void **state)
{
    (void)state;
    for (int k = 0; k < 8; k++) {
        joined b = joined_make(SBN_BF16, (norm_case){50, 7, 3, 3, k & 1 ? 16 : 0}, 122);
        sbn_norm_config cfg = joined_config(&b);
        cfg.relu = k & 2;
        seat narrow = share(&cfg, &b, (layout)(k / 4));
        joined wide = b;
        wide.dtype = cfg.dtype = SBN_F32;
        seat s = share(&cfg, &wide, (layout)(k / 4));
        seat_step(&narrow, true);
        seat_step(&s, true);
        seat_same_state(&narrow, &s);
        for (int64_t e = 0; e < s.n * 7 * 9; e++) {
            uint16_t want[2];
            set_element(SBN_BF16, want, 0, element(SBN_F32, s.y.data, e));
            set_element(SBN_BF16, want, 1, element(SBN_F32, s.dx.data, e));
            same_bits((uint16_t *)narrow.y.data + e, want, 2);
            same_bits((uint16_t *)narrow.dx.data + e, want + 1, 2);
        }
        seat_free(&narrow);
        seat_free(&s);
        joined_free(&b);
    }
}

/* d and h are rows of one plane. */
static void volumes_are_images(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F32, (norm_case){40, 3, 6, 5, 0}, 123);
    sbn_norm_config cfg = joined_config(&b);
    for (int form = 0; form < 2; form++) {
        seat image = share(&cfg, &b, (layout)form),
             volume = share(&cfg, &b, (layout)form);
        sbn_tensor *views[] = {&volume.x, &volume.dy, &volume.y, &volume.dx};
        for (int k = 0; k < 4; k++) {
            if (form == NCHW)
                *views[k] =
                    sbn_tensor_ncdhw(SBN_F32, views[k]->data, volume.n, 3, 2, 3, 5);
            else
                *views[k] = sbn_tensor_strided(SBN_F32, views[k]->data,
                                               (const int64_t[]){volume.n, 3, 2, 3, 5},
                                               (const int64_t[]){90, 1, 45, 15, 3});
        }
        seat_step(&image, false);
        seat_step(&volume, false);
        seat_same_samples(&volume, &image, 0, false);
        seat_same_state(&volume, &image);
        /* the same pixels, another shape: refused where x had the other */
        FAILS(SBN_E_ARG, sbn_norm_backward(volume.norm, &image.dy, &volume.dx));
        seat_free(&image);
        seat_free(&volume);
    }
    joined_free(&b);
}

/* A view of t's shape cut out of an array with `more` channels, of which it takes those
 * from channel 1 on, and every `every`-th sample. */
static sbn_tensor cut_out(const sbn_tensor *t, layout form, int64_t more, int64_t every)
{
    int64_t s = tensor_pixels(t), c = t->c + more,
            count = (t->n * every + 1) * c * s * sbn_dtype_bytes(t->dtype);
    char *array = malloc((size_t)count);
    memset(array, 0xa5, (size_t)count);
    int64_t step = form == NHWC ? 1 : s, pixel = form == NHWC ? c : 1;
    return sbn_tensor_strided(
        t->dtype, array + (more > 1 ? step : 0) * sbn_dtype_bytes(t->dtype),
        (const int64_t[]){t->n, t->c, t->d, t->h, t->w},
        (const int64_t[]){every * c * s, step, t->h * t->w * pixel, t->w * pixel, pixel});
}

/* What lies around the view has the byte it was filled with; frees the array. */
static void check_around(sbn_tensor *t, layout form, int64_t more, int64_t every)
{
    int64_t s = tensor_pixels(t), c = t->c + more, size = sbn_dtype_bytes(t->dtype),
            step = form == NHWC ? 1 : s, count = (t->n * every + 1) * c * s;
    char *array = (char *)t->data - (more > 1 ? step : 0) * size;
    for (int64_t r = 0; r < t->n; r++)
        for (int64_t i = 0; i < t->c; i++)
            for (int64_t j = 0; j < s; j++)
                memset((char *)t->data +
                           size * (r * t->stride_n + i * t->stride_c + j * t->stride_s),
                       0xa5, (size_t)size);
    for (int64_t k = 0; k < count * size; k++)
        assert_int_equal((unsigned char)array[k], 0xa5);
    free(array);
}

static void trap_20_cut_out_of_larger_arrays(void **state)
{
    (void)state;
    for (int k = 0; k < 3 * 2 * 2 * 4; k++) {
        layout form = (layout)(k / 3 % 2);
        /* one channel of several is every so-many-th number: its sums go as those of
         * channels last, another order than that of a contiguous plane */
        int64_t fewest = form == NHWC ? 2 : 1, h = k & 4 ? 2 : 1;
        norm_case shape = {40, k & 1 ? 3 : fewest, h, h * 3 - 2, k & 8 ? 16 : 0};
        joined b = joined_make((sbn_dtype)(k % 3), shape, 124);
        sbn_norm_config cfg = joined_config(&b);
        cfg.relu = k / 12 % 2;
        seat want = share(&cfg, &b, form), s = share(&cfg, &b, form);
        tensor_fill(&s.z, b.x_d, s.first);
        tensor_fill(&want.z, b.x_d, s.first);
        sbn_tensor *views[] = {&s.x, &s.dy, &s.z, &s.y, &s.dx, &s.dz}, old[6];
        int64_t more[6], every[6];
        uint8_t keep[40];
        for (int r = 0; r < 40; r++) keep[r] = k < 24 || r % 5 != 2;
        OK(sbn_norm_set_mask(s.norm, keep, s.n));
        OK(sbn_norm_set_mask(want.norm, keep, s.n));
        for (int v = 0; v < 6; v++) { /* strides of their own for each tensor */
            more[v] = (v + k) % 3;
            every[v] = 1 + (v + k) % 2;
            old[v] = *views[v];
            *views[v] = cut_out(&old[v], form, more[v], every[v]);
        }
        tensor_fill(&s.x, b.x_d, s.first);
        tensor_fill(&s.dy, b.dy_d, s.first);
        tensor_fill(&s.z, b.x_d, s.first);
        seat_step(&want, true);
        seat_step(&s, true);
        seat_same_samples(&s, &want, 0, true);
        seat_same_state(&s, &want);
        for (int v = 0; v < 6; v++) {
            check_around(views[v], form, more[v], every[v]);
            *views[v] = old[v];
        }
        seat_free(&want);
        seat_free(&s);
        joined_free(&b);
    }
}

/* Of features, (n,c), any may be left out between two: the bits of a copy. */
static void every_second_feature(void **state)
{
    (void)state;
    for (int k = 0; k < 6; k++) {
        joined b = joined_make((sbn_dtype)(k % 3), (norm_case){70, 19, 1, 1, 0}, 127);
        sbn_norm_config cfg = joined_config(&b);
        cfg.relu = k / 3;
        seat want = share(&cfg, &b, NCHW), s = share(&cfg, &b, NCHW);
        sbn_tensor wide = tensor_make(NCHW, b.dtype, s.n, 19, 1, 2), old = s.x;
        s.x = sbn_tensor_strided(b.dtype, wide.data, (const int64_t[]){s.n, 19, 1, 1, 1},
                                 (const int64_t[]){38, 2, 0, 0, 0});
        tensor_fill(&s.x, b.x_d, s.first);
        seat_step(&want, false);
        seat_step(&s, false);
        seat_same_samples(&s, &want, 0, false);
        seat_same_state(&s, &want);
        s.x = old;
        tensor_free(&wide);
        seat_free(&want);
        seat_free(&s);
        joined_free(&b);
    }
}

/* Axes of length 1 may have any stride. */
static void single_axes_have_no_stride(void **state)
{
    (void)state;
    float x_data[64], y_data[64], want_data[64];
    for (int e = 0; e < 64; e++) x_data[e] = (float)((e * 7 + test_rank) % 13);
    const struct {
        int64_t shape[5], strides[5];
    } views[] = {{{6, 1, 1, 2, 3}, {6, -5, 0, 3, 1}},
                 {{1, 4, 1, 1, 3}, {0, 3, -9, 77, 1}},
                 {{6, 4, 1, 1, 1}, {4, 1, -1, INT64_MIN, 0}},
                 {{1, 1, 1, 1, 9}, {INT64_MIN, 0, 0, 0, 1}}};
    for (int k = 0; k < 4; k++) {
        const int64_t *shape = views[k].shape;
        sbn_norm_config cfg = sbn_norm_config_default(shape[1]);
        sbn_norm *norm;
        OK(sbn_norm_create(&cfg, test_group, &norm));
        sbn_tensor x = sbn_tensor_strided(SBN_F32, x_data, shape, views[k].strides),
                   y = x;
        y.data = y_data;
        OK(sbn_norm_forward(norm, &x, &y));
        x = sbn_tensor_ncdhw(SBN_F32, x_data, shape[0], shape[1], shape[2], shape[3],
                             shape[4]);
        y = x;
        y.data = want_data;
        OK(sbn_norm_forward(norm, &x, &y));
        same_bits(y_data, want_data, tensor_bytes(&y));
        sbn_norm_destroy(&norm);
    }
}

/* Each view that is refused, with the part of the error that says why. */
static const struct {
    const char *why;
    int64_t shape[5], strides[5];
    int shift; /* bytes off alignment */
} refused[] = {
    {"stride 1", {4, 3, 1, 2, 3}, {36, 12, 0, 6, 2}, 0},       /* every second pixel */
    {"stride 1", {4, 3, 1, 2, 3}, {72, 2, 0, 18, 6}, 0},       /* every second channel */
    {"evenly spaced", {4, 3, 1, 2, 3}, {60, 20, 0, 5, 1}, 0},  /* a window */
    {"evenly spaced", {4, 3, 2, 2, 3}, {90, 30, 15, 3, 1}, 0}, /* a window in depth */
    {"evenly spaced", {4, 3, 1, 2, 3}, {18, 6, 0, 1, 2}, 0},   /* transposed */
    {"evenly spaced", {4, 3, 1, 2, 3}, {18, 6, 0, 3, -1}, 0},
    {"evenly spaced", {4, 3, 1, 2, 3}, {18, 6, 0, 0, 0}, 0},
    {"share places", {4, 3, 1, 2, 3}, {6, 6, 0, 3, 1}, 0},
    {"share places", {4, 3, 1, 2, 3}, {18, 5, 0, 3, 1}, 0},
    {"share places", {4, 3, 1, 2, 3}, {17, 6, 0, 3, 1}, 0},
    {"share places", {4, 3, 1, 2, 3}, {0, 6, 0, 3, 1}, 0},
    {"share places", {4, 3, 1, 2, 3}, {18, 0, 0, 3, 1}, 0},
    {"share places", {4, 3, 1, 2, 3}, {-18, 6, 0, 3, 1}, 0},
    {"share places", {4, 3, 1, 2, 3}, {18, -6, 0, 3, 1}, 0},
    {"share places", {4, 3, 1, 2, 3}, {18, 1, 0, 3, 1}, 0},
    {"share places", {4, 3, 1, 2, 3}, {INT64_MAX / 2, 6, 0, 3, 1}, 0},
    {"share places", {4, 3, 1, 2, 3}, {INT64_MIN, 6, 0, 3, 1}, 0},
    {"aligned", {4, 3, 1, 2, 3}, {18, 6, 0, 3, 1}, 2},
    {"expected n", {4, 3, 1, 0, 3}, {18, 6, 0, 3, 1}, 0},
    {"overflows", {4, 3, INT64_MAX / 2, 2, 3}, {18, 6, 0, 3, 1}, 0},
    {"overflows", {4, 3, 1, 1, INT64_MAX / 16}, {18, 6, 0, 3, 1}, 0},
};
enum { REFUSED = sizeof refused / sizeof *refused };

static void said(int bad, const char *why)
{
    if (strstr(sbn_last_error(), why) && strstr(sbn_last_error(), "norm")) return;
    fail_msg("process %d of bad %d: '%s' does not say '%s'", test_rank, bad,
             sbn_last_error(), why);
}

static void refused_views(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F32, (norm_case){4, 3, 2, 3, 0}, 125);
    sbn_norm_config cfg = joined_config(&b);
    seat s = seat_make(&cfg, test_group, &b, NCHW, 0, 4);
    static float array[1024];
    EACH_BAD(bad)
    for (int k = 0; k < REFUSED; k++) {
        sbn_tensor view = sbn_tensor_strided(SBN_F32, (char *)array + refused[k].shift,
                                             refused[k].shape, refused[k].strides);
        sbn_tensor *given = IS_BAD(bad) ? &view : NULL;
        FAILS_ON(bad, SBN_E_ARG, sbn_norm_forward(s.norm, given ? given : &s.x, &s.y));
        said(bad, refused[k].why);
        FAILS_ON(bad, SBN_E_ARG, sbn_norm_forward(s.norm, &s.x, given ? given : &s.y));
        said(bad, refused[k].why);
        OK(sbn_norm_forward(s.norm, &s.x, &s.y));
        FAILS_ON(bad, SBN_E_ARG, sbn_norm_backward(s.norm, given ? given : &s.dy, &s.dx));
        said(bad, refused[k].why);
        FAILS_ON(bad, SBN_E_ARG, sbn_norm_backward(s.norm, &s.dy, given ? given : &s.dx));
        said(bad, refused[k].why);
        OK(sbn_norm_backward(s.norm, &s.dy, &s.dx));
    }
    seat_free(&s);
    joined_free(&b);
}

/* One call, two layouts; also in the place of each other with other strides. */
static void mixed_layouts(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F32, (norm_case){4, 3, 2, 3, 0}, 126);
    sbn_norm_config cfg = joined_config(&b);
    EACH_BAD(bad)
    for (int form = 0; form < 2; form++) {
        seat s = seat_make(&cfg, test_group, &b, (layout)form, 0, 4),
             other = seat_make(&cfg, test_group, &b, (layout)!form, 0, 4);
        bool mine = IS_BAD(bad);
#define MIXED(call) FAILS_ON(bad, SBN_E_ARG, call), said(bad, "one layout")
        MIXED(sbn_norm_forward(s.norm, &s.x, mine ? &other.y : &s.y));
        MIXED(sbn_norm_forward(s.norm, mine ? &other.x : &s.x, &s.y));
        MIXED(sbn_norm_forward_add(s.norm, &s.x, mine ? &other.z : &s.z, &s.y));
        OK(sbn_norm_forward_add(s.norm, &s.x, &s.z, &s.y));
        MIXED(sbn_norm_backward(s.norm, mine ? &other.dy : &s.dy, &s.dx));
        MIXED(sbn_norm_backward(s.norm, &s.dy, mine ? &other.dx : &s.dx));
        MIXED(sbn_norm_backward_add(s.norm, &s.dy, &s.dx, mine ? &other.dz : &s.dz));
        sbn_tensor crossed = other.dx;
        crossed.data = s.dy.data;
        FAILS_ON(bad, SBN_E_ARG,
                 sbn_norm_backward(s.norm, &s.dy, mine ? &crossed : &s.dx));
        said(bad, "exactly in its place");
        seat_step(&s, true);
        /* both layouts in two calls are fine */
        OK(sbn_norm_forward(s.norm, &other.x, &other.y));
        OK(sbn_norm_backward(s.norm, &other.dy, &other.dx));
        sbn_tensor in_place = other.x;
        in_place.data = s.x.data;
        OK(sbn_norm_set_mode(s.norm, SBN_NORM_EVAL_BATCH));
        FAILS_ON(bad, SBN_E_ARG, sbn_norm_forward(s.norm, &s.x, mine ? &in_place : &s.y));
        said(bad, "exactly in its place");
        seat_free(&s);
        seat_free(&other);
    }
    joined_free(&b);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(trap_20_channels_last),
    cmocka_unit_test(bfloat16_is_rounded_float32),
    cmocka_unit_test(volumes_are_images),
    cmocka_unit_test(trap_20_cut_out_of_larger_arrays),
    cmocka_unit_test(every_second_feature),
    cmocka_unit_test(single_axes_have_no_stride),
    cmocka_unit_test(refused_views),
    cmocka_unit_test(mixed_layouts),
};
TEST_MAIN(tests)

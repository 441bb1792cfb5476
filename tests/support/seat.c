#include "support/seat.h"

#include <stdlib.h>
#include <string.h>

#include "support/harness.h"

sbn_dtype state_type(sbn_dtype dtype)
{
    return dtype == SBN_BF16 ? SBN_F32 : dtype;
}

int64_t tensor_pixels(const sbn_tensor *t)
{
    return t->d * t->h * t->w;
}

int64_t tensor_bytes(const sbn_tensor *t)
{
    return t->n * t->c * tensor_pixels(t) * sbn_dtype_bytes(t->dtype);
}

static int64_t place(const sbn_tensor *t, int64_t r, int64_t i, int64_t j)
{
    return r * t->stride_n + i * t->stride_c + j * t->stride_s;
}

double tensor_get(const sbn_tensor *t, int64_t r, int64_t i, int64_t j)
{
    return element(t->dtype, t->data, place(t, r, i, j));
}

void tensor_set(const sbn_tensor *t, int64_t r, int64_t i, int64_t j, double v)
{
    set_element(t->dtype, t->data, place(t, r, i, j), v);
}

sbn_tensor tensor_make(layout form, sbn_dtype dtype, int64_t n, int64_t c, int64_t h,
                       int64_t w)
{
    sbn_tensor t = form == NHWC ? sbn_tensor_nhwc(dtype, NULL, n, h, w, c)
                                : sbn_tensor_nchw(dtype, NULL, n, c, h, w);
    size_t bytes = (size_t)tensor_bytes(&t);
    t.data = malloc(bytes + 1);
    assert_non_null(t.data);
    memset(t.data, 0xff, bytes);
    return t;
}

sbn_tensor tensor_like(const sbn_tensor *t)
{
    return tensor_make(t->stride_s == 1 ? NCHW : NHWC, t->dtype, t->n, t->c, t->h, t->w);
}

void tensor_free(sbn_tensor *t)
{
    free(t->data);
    *t = (sbn_tensor){0};
}

void tensor_fill(const sbn_tensor *t, const double *values, int64_t from)
{
    int64_t s = tensor_pixels(t);
    for (int64_t r = 0; r < t->n; r++)
        for (int64_t i = 0; i < t->c; i++)
            for (int64_t j = 0; j < s; j++)
                tensor_set(t, r, i, j, values[((from + r) * t->c + i) * s + j]);
}

void tensor_same(const sbn_tensor *part, const sbn_tensor *whole, int64_t skip)
{
    int64_t size = sbn_dtype_bytes(part->dtype);
    for (int64_t r = 0; r < part->n; r++)
        for (int64_t i = 0; i < part->c; i++)
            for (int64_t j = 0; j < tensor_pixels(part); j++)
                same_bits((char *)part->data + size * place(part, r, i, j),
                          (char *)whole->data + size * place(whole, skip + r, i, j),
                          size);
}

seat seat_make(const sbn_norm_config *cfg, sbn_group *group, const joined *b, layout form,
               int64_t first, int64_t n)
{
    seat s = {.cfg = *cfg, .first = first, .n = n};
    OK(sbn_norm_create(cfg, group, &s.norm));
    s.state = sbn_norm_get_state(s.norm);
    for (int64_t i = 0; s.state.weight && i < b->c; i++) {
        set_element(state_type(b->dtype), s.state.weight, i, b->gamma_d[i]);
        set_element(state_type(b->dtype), s.state.bias, i, b->beta_d[i]);
    }
    OK(sbn_norm_set_place(s.norm, first));
    sbn_tensor *own[] = {&s.x, &s.dy, &s.z, &s.y, &s.dx, &s.dz};
    for (int k = 0; k < 6; k++)
        *own[k] = tensor_make(form, b->dtype, n, b->c, b->h, b->w);
    tensor_fill(&s.x, b->x_d, first);
    tensor_fill(&s.dy, b->dy_d, first);
    int64_t pixels = b->h * b->w, row = b->c * pixels, all = b->n * row;
    for (int64_t e = 0; e < n * row; e++)
        tensor_set(&s.z, e / row, e % row / pixels, e % pixels,
                   b->dy_d[all - 1 - (first * row + e)]);
    return s;
}

void seat_free(seat *s)
{
    sbn_norm_destroy(&s->norm);
    sbn_tensor *own[] = {&s->x, &s->dy, &s->z, &s->y, &s->dx, &s->dz};
    for (int k = 0; k < 6; k++) tensor_free(own[k]);
}

void seat_draw_running(seat *s)
{
    sbn_dtype t = state_type(s->cfg.dtype);
    for (int64_t i = 0; i < s->cfg.channels; i++) {
        set_element(t, s->state.running_mean, i, 0.3 * (double)(i % 5) - 0.5);
        set_element(t, s->state.running_var, i, 0.4 + 0.35 * (double)(i % 4));
    }
}

void seat_step(seat *s, bool add)
{
    if (add) {
        OK(sbn_norm_forward_add(s->norm, &s->x, &s->z, &s->y));
        OK(sbn_norm_backward_add(s->norm, &s->dy, &s->dx, &s->dz));
    } else {
        OK(sbn_norm_forward(s->norm, &s->x, &s->y));
        OK(sbn_norm_backward(s->norm, &s->dy, &s->dx));
    }
}

void seat_same_samples(const seat *part, const seat *whole, int64_t skip, bool add)
{
    tensor_same(&part->y, &whole->y, skip);
    tensor_same(&part->dx, &whole->dx, skip);
    if (add) tensor_same(&part->dz, &whole->dz, skip);
}

void seat_same_state(const seat *a, const seat *b)
{
    int64_t bytes = a->cfg.channels * sbn_dtype_bytes(state_type(a->cfg.dtype));
    if (a->state.weight_grad) {
        same_bits(a->state.weight_grad, b->state.weight_grad, bytes);
        same_bits(a->state.bias_grad, b->state.bias_grad, bytes);
    }
    if (!a->state.running_mean) return;
    same_bits(a->state.running_mean, b->state.running_mean, bytes);
    same_bits(a->state.running_var, b->state.running_var, bytes);
    assert_int_equal(*a->state.num_batches_tracked, *b->state.num_batches_tracked);
}

void uneven(int64_t total, int turn, int rank, int size, int64_t *first, int64_t *n)
{
    static const int64_t weights[] = {5, 0, 3, 1, 2, 0, 7};
    int64_t before = 0, all = 0, mine = 0;
    for (int r = 0; r < size; r++) {
        int64_t w = weights[(r + turn) % 7];
        if (r < rank) before += w;
        if (r == rank) mine = w;
        all += w;
    }
    if (all == 0) mine = all = 1; /* a process alone has all */
    *first = total * before / all;
    *n = total * (before + mine) / all - *first;
}

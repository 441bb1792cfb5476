#include "kernels/norm_tmpl.h"

/* The second derivative: sums and elements, plain loops in both forms. */

/* Sums of one run, each added to from the left. */
INLINE void add_sums(T v, T dy, T u, double *sum_v, double *sum_v_d, double *sum_v_dy)
{
    *sum_v += (double)v;
    *sum_v_d += (double)v * (double)u;
    *sum_v_dy += (double)v * (double)dy;
}

static void sums_planes(const sbni_block *b, const sbni_view *v, const sbni_view *dy,
                        const sbni_view *x, const T *hi, const T *lo, double *sum_v,
                        double *sum_v_d, double *sum_v_dy)
{
    for (int64_t i = 0; i < b->c; i++)
        for (int64_t from = 0; from < b->s; from += PIECE) {
            int64_t end = piece_end(b, from);
            double a = 0, d = 0, g = 0;
            for (int64_t r = 0; r < b->n; r++) {
                const S *px = plane(x, b->rows[r], i), *pv = plane(v, b->rows[r], i),
                        *pg = plane(dy, b->rows[r], i);
                for (int64_t j = from; j < end; j++)
                    add_sums(get(pv[j]), get(pg[j]), (get(px[j]) - hi[i]) - lo[i], &a, &d,
                             &g);
            }
            sum_v[i] += a, sum_v_d[i] += d, sum_v_dy[i] += g;
        }
}

static void sums_rows(const sbni_block *b, const sbni_view *v, const sbni_view *dy,
                      const sbni_view *x, const T *hi, const T *lo, double *sum_v,
                      double *sum_v_d, double *sum_v_dy)
{
    S *px[ROWS], *pv[ROWS], *pg[ROWS];
    int count;
    for (spot at = {0, 0}; at.row < b->n; advance(b, &at, count)) {
        count = pixels(b, x, &at, px);
        pixels(b, v, &at, pv);
        pixels(b, dy, &at, pg);
        for (int64_t i = 0; i < b->c; i++) {
            double a = 0, d = 0, g = 0;
            for (int k = 0; k < count; k++)
                add_sums(get(pv[k][i]), get(pg[k][i]), (get(px[k][i]) - hi[i]) - lo[i],
                         &a, &d, &g);
            sum_v[i] += a, sum_v_d[i] += d, sum_v_dy[i] += g;
        }
    }
}

void K(norm_second_sums)(const sbni_block *b, const sbni_view *v, const sbni_view *dy,
                         const sbni_view *x, const sbni_channels *ch, double *sum_v,
                         double *sum_v_d, double *sum_v_dy)
{
    for (int64_t i = 0; i < b->c; i++) sum_v[i] = sum_v_d[i] = sum_v_dy[i] = 0;
    (b->planes ? sums_planes : sums_rows)(b, v, dy, x, ch->mean_hi, ch->mean_lo, sum_v,
                                          sum_v_d, sum_v_dy);
}

void K(norm_second_apply)(const sbni_block *b, const sbni_view *v, const sbni_view *dy,
                          const sbni_view *x, const sbni_channels *ch,
                          const sbni_second_factors *f, const sbni_view *ddy,
                          const sbni_view *gx)
{
    const T *hi = ch->mean_hi, *lo = ch->mean_lo, *y_v = f->y_v, *y_d = f->y_d,
            *y_1 = f->y_1, *x_v = f->x_v, *x_dy = f->x_dy, *x_d = f->x_d, *x_1 = f->x_1;
    int64_t outer = b->planes ? b->c : b->s, inner = b->planes ? b->s : b->c;
    for (int64_t r = 0; r < b->n; r++)
        for (int64_t o = 0; o < outer; o++) {
            int64_t row = b->rows[r];
            const S *px = run_at(b, x, row, o), *pv = run_at(b, v, row, o),
                    *pg = run_at(b, dy, row, o);
            S *py = ddy ? run_at(b, ddy, row, o) : NULL,
              *pgx = gx ? run_at(b, gx, row, o) : NULL;
            for (int64_t k = 0; k < inner; k++) {
                int64_t i = b->planes ? o : k;
                T u = (get(px[k]) - hi[i]) - lo[i], a = get(pv[k]), g = get(pg[k]);
                if (py) py[k] = put(y_v[i] * a + y_d[i] * u + y_1[i]);
                if (pgx) pgx[k] = put(x_v[i] * a + x_dy[i] * g + x_d[i] * u + x_1[i]);
            }
        }
}

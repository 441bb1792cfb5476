#include "data/synthetic.h"

#include "core/rng.h"
#include "data/glyph.h"

enum {
    SIDE = SBNI_SYNTHETIC_SIDE,
    PIXELS = SBNI_SYNTHETIC_PIXELS,
    SPAN_PIECES = 4,  /* straight pieces between two points of a curve */
    NOISE_DRAW = 4096 /* first draw of the ground, behind all others of the image */
};

typedef struct point {
    float x, y;
} point;

/* The draws of one image, four words at a time. */
typedef struct dice {
    sbni_rng_key key;
    uint64_t index;
    uint32_t draw, words[4];
    int left;
} dice;

static uint32_t roll(dice *d)
{
    if (d->left == 0) {
        sbni_rng_words(d->key, d->index, d->draw++, d->words);
        d->left = 4;
    }
    return d->words[--d->left];
}

/* Uniform in [low, high); 24 bits are what a float holds. */
static float between(dice *d, float low, float high)
{
    return low + (high - low) * ((float)(roll(d) >> 8) * 0x1p-24f);
}

static int below(dice *d, int n)
{
    return (int)((uint64_t)roll(d) * (uint64_t)n >> 32);
}

/* From glyph units (100 is half a digit) to pixels. */
typedef struct warp_map {
    float xx, xy, yx, yy, x0, y0;
    float bend;   /* how far the middle of the height moves aside */
    float wobble; /* how far each point of a stroke strays */
} warp_map;

static warp_map roll_warp(dice *d)
{
    /* cos and sin of an angle up to 0.4 from its half tangent: no library function. */
    float t = between(d, -0.2f, 0.2f), q = 1.0f / (1.0f + t * t);
    float cosine = (1.0f - t * t) * q, sine = 2.0f * t * q;
    float width = between(d, 0.065f, 0.105f), height = between(d, 0.070f, 0.102f);
    float shear = between(d, -0.35f, 0.35f);
    warp_map w;
    /* rotation · shear · scale */
    w.xx = cosine * width, w.xy = (cosine * shear - sine) * height;
    w.yx = sine * width, w.yy = (sine * shear + cosine) * height;
    w.x0 = 0.5f * (SIDE - 1) + between(d, -3.0f, 3.0f);
    w.y0 = 0.5f * (SIDE - 1) + between(d, -3.0f, 3.0f);
    w.bend = between(d, -14.0f, 14.0f);
    w.wobble = between(d, 3.0f, 17.0f);
    return w;
}

static point place(const warp_map *w, const int8_t at[2], dice *d)
{
    float y = (float)at[1] + between(d, -w->wobble, w->wobble), u = y * 0.01f;
    float x = (float)at[0] + between(d, -w->wobble, w->wobble) + w->bend * (1.0f - u * u);
    return (point){w->xx * x + w->xy * y + w->x0, w->yx * x + w->yy * y + w->y0};
}

typedef struct pen_tip {
    float reach;        /* no ink beyond this distance, in pixels */
    float reach2, fade; /* ink = (reach² - distance²)·fade, at most 1 */
    float ink;          /* grey value of full ink */
} pen_tip;

static pen_tip make_pen(float radius, float ink)
{
    /* Full ink half a pixel inside the edge, none half a pixel outside. */
    float outer = radius + 0.5f, inner = radius - 0.5f;
    float outer2 = outer * outer;
    return (pen_tip){outer, outer2, 1.0f / (outer2 - inner * inner), ink};
}

static int clamp_side(float v)
{
    return v < 0.0f ? 0 : v > SIDE - 1 ? SIDE - 1 : (int)v;
}

/* Where strokes overlap the stronger ink stays, so that crossings are not seen. */
static void draw_line(const pen_tip *pen, point a, point b, float *canvas)
{
    float dx = b.x - a.x, dy = b.y - a.y, length2 = dx * dx + dy * dy;
    float per_length2 = length2 > 0.0f ? 1.0f / length2 : 0.0f;
    int x0 = clamp_side((dx < 0.0f ? b.x : a.x) - pen->reach),
        x1 = clamp_side((dx < 0.0f ? a.x : b.x) + pen->reach),
        y0 = clamp_side((dy < 0.0f ? b.y : a.y) - pen->reach),
        y1 = clamp_side((dy < 0.0f ? a.y : b.y) + pen->reach);
    for (int y = y0; y <= y1; y++) {
        float *row = canvas + y * SIDE;
        float py = (float)y - a.y;
        for (int x = x0; x <= x1; x++) {
            float px = (float)x - a.x;
            float t = (px * dx + py * dy) * per_length2; /* nearest point of the line */
            t = t < 0.0f ? 0.0f : t > 1.0f ? 1.0f : t;
            float ex = px - t * dx, ey = py - t * dy;
            float ink = (pen->reach2 - ex * ex - ey * ey) * pen->fade;
            ink = (ink > 1.0f ? 1.0f : ink) * pen->ink;
            row[x] = row[x] > ink ? row[x] : ink;
        }
    }
}

/* Catmull-Rom: a cubic through p[1] and p[2] whose slopes come from the neighbours. */
static void draw_span(const pen_tip *pen, const point p[4], float *canvas)
{
    point from = p[1];
    for (int i = 1; i <= SPAN_PIECES; i++) {
        float t = (float)i / SPAN_PIECES, t2 = t * t, t3 = t2 * t;
        float w0 = 0.5f * (2.0f * t2 - t3 - t),
              w1 = 0.5f * (3.0f * t3 - 5.0f * t2) + 1.0f;
        float w2 = 0.5f * (4.0f * t2 - 3.0f * t3 + t), w3 = 0.5f * (t3 - t2);
        point to = {w0 * p[0].x + w1 * p[1].x + w2 * p[2].x + w3 * p[3].x,
                    w0 * p[0].y + w1 * p[1].y + w2 * p[2].y + w3 * p[3].y};
        draw_line(pen, from, to, canvas);
        from = to;
    }
}

static point mirror(point about, point p)
{
    return (point){2.0f * about.x - p.x, 2.0f * about.y - p.y};
}

static void draw_stroke(const pen_tip *pen, const sbni_stroke *stroke,
                        const warp_map *warp, dice *d, float *canvas)
{
    point p[SBNI_STROKE_POINTS + 2]; /* one more at each end for the slopes there */
    const int n = stroke->n;
    for (int i = 0; i < n; i++) p[i + 1] = place(warp, stroke->at[i], d);
    p[0] = mirror(p[1], p[2]);
    p[n + 1] = mirror(p[n], p[n - 1]);
    for (int i = 1; i < n; i++) {
        if (stroke->smooth)
            draw_span(pen, p + i - 1, canvas);
        else
            draw_line(pen, p[i], p[i + 1], canvas);
    }
}

/* Short faint lines anywhere. One draw a statement: C leaves open in which order
 * arguments and initializers roll. */
static void draw_specks(dice *d, float ink, float *canvas)
{
    for (int n = below(d, 6); n > 0; n--) {
        float radius = between(d, 0.5f, 1.0f);
        pen_tip pen = make_pen(radius, ink * between(d, 0.3f, 1.0f));
        point a, b;
        a.x = between(d, 0.0f, SIDE);
        a.y = between(d, 0.0f, SIDE);
        b.x = a.x + between(d, -6.0f, 6.0f);
        b.y = a.y + between(d, -6.0f, 6.0f);
        draw_line(&pen, a, b, canvas);
    }
}

/* Add the ground's grey and its grain, and round to bytes. */
static void develop(const dice *d, float ground, float grain, const float *canvas,
                    uint8_t *pixels)
{
    uint32_t words[PIXELS / 4]; /* one byte of noise a pixel */
    for (int i = 0; i < PIXELS / 16; i++)
        sbni_rng_words(d->key, d->index, (uint32_t)(NOISE_DRAW + i), words + 4 * i);
    for (int i = 0; i < PIXELS; i++) {
        int byte = (int)(words[i >> 2] >> 8 * (i & 3) & 255);
        /* Two dice of 16 faces: -15 … 15, most often 0. */
        float v = canvas[i] + ground + grain * (float)((byte & 15) + (byte >> 4) - 15);
        v = v < 0.0f ? 0.0f : v > 255.0f ? 255.0f : v;
        pixels[i] = (uint8_t)(int)(v + 0.5f);
    }
}

sbn_dataset_info sbni_synthetic_info(sbn_split split)
{
    return (sbn_dataset_info){.n = split == SBN_SPLIT_TRAIN ? 60000 : 10000,
                              .c = 1,
                              .h = SIDE,
                              .w = SIDE,
                              .classes = 10};
}

static dice dice_of(uint64_t seed, sbn_split split, int64_t index)
{
    return (dice){
        .key = {.seed = seed, .purpose = SBNI_RNG_SYNTHETIC, .epoch = (uint32_t)split},
        .index = (uint64_t)index};
}

/* The first draw of an image. */
static int roll_label(dice *d)
{
    return below(d, 10);
}

int32_t sbni_synthetic_label(uint64_t seed, sbn_split split, int64_t index)
{
    dice d = dice_of(seed, split, index);
    return roll_label(&d);
}

int32_t sbni_synthetic_draw(uint64_t seed, sbn_split split, int64_t index,
                            uint8_t *pixels)
{
    dice d = dice_of(seed, split, index);
    float canvas[PIXELS] = {0};
    int label = roll_label(&d);
    const sbni_digit *digit = &sbni_digits[label];
    const sbni_glyph *glyph = &digit->shape[below(&d, digit->n)];
    warp_map warp = roll_warp(&d);
    float ground = between(&d, 0.0f, 40.0f), grain = between(&d, 0.5f, 5.0f);
    float ink = between(&d, 90.0f, 255.0f) - ground;
    pen_tip pen = make_pen(between(&d, 0.7f, 1.7f), ink);
    for (int i = 0; i < glyph->n; i++)
        draw_stroke(&pen, &glyph->stroke[i], &warp, &d, canvas);
    draw_specks(&d, ink, canvas);
    develop(&d, ground, grain, canvas, pixels);
    return label;
}

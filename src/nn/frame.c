#include "nn/frame.h"

#include <string.h>

static int64_t count_of(sbni_image image)
{
    return image.c * image.h * image.w;
}

sbni_frame sbni_frame_of(const sbn_model *m, int64_t c, int64_t pad, int64_t h, int64_t w)
{
    /* windows of channels so far apart would drive each other out of the nearest cache */
    const int64_t apart = 512, line = 64, size = sbn_dtype_bytes(m->cfg.dtype);
    sbni_frame f = {pad, h, w, h * w, 0};
    if (f.channel * size % apart == 0) f.channel += line / size;
    f.count = c * f.channel;
    return f;
}

sbni_frame sbni_frame_padded(const sbn_model *m, sbni_image image, int64_t pad)
{
    if (pad == 0)
        return (sbni_frame){0, image.h, image.w, image.h * image.w, count_of(image)};
    return sbni_frame_of(m, image.c, pad, image.h + 2 * pad, image.w + 2 * pad);
}

static bool is_all(sbni_image image, sbni_frame f)
{
    return f.count == count_of(image);
}

void sbni_frame_clear(const sbn_model *m, sbni_image image, sbni_frame f, void *to)
{
    if (!is_all(image, f))
        memset(to, 0, (size_t)(f.count * sbn_dtype_bytes(m->cfg.dtype)));
}

sbni_planes sbni_frame_fill(const sbn_model *m, const void *x, sbni_image image,
                            sbni_frame f, void *to)
{
    const int64_t size = sbn_dtype_bytes(m->cfg.dtype);
    const char *from = x;
    if (is_all(image, f)) return (sbni_planes){x, f.count, f.channel};
    for (int64_t c = 0; c < image.c; c++) {
        char *row = (char *)to + (c * f.channel + f.pad * f.w + f.pad) * size;
        for (int64_t i = 0; i < image.h; i++, row += f.w * size, from += image.w * size)
            memcpy(row, from, (size_t)(image.w * size));
    }
    return (sbni_planes){to, f.count, f.channel};
}

sbni_planes sbni_frame_fill_all(const sbn_model *m, const void *x, sbni_image image,
                                sbni_frame f, int64_t n, void *to)
{
    sbni_planes planes = {x, f.count, f.channel};
    for (int64_t i = n - 1; i >= 0; i--) {
        void *frame = sbni_at(m, to, i * f.count);
        sbni_frame_clear(m, image, f, frame);
        planes = sbni_frame_fill(m, sbni_at(m, x, i * count_of(image)), image, f, frame);
    }
    return planes;
}

sbni_windows sbni_frame_windows(int64_t c, sbni_frame f, int64_t kernel, int32_t *offset)
{
    sbni_windows w = {offset, 0, f.h - kernel + 1, f.w - kernel + 1, f.w};
    if (kernel == 1) w.columns *= w.rows, w.rows = 1;
    for (int64_t i = 0; i < c; i++)
        for (int64_t p = 0; p < kernel * kernel; p++)
            offset[w.k++] = (int32_t)(i * f.channel + p / kernel * f.w + p % kernel);
    return w;
}

#include "support/tiles.h"

#include <stdlib.h>
#include <string.h>

#include "support/harness.h"
#include "support/tables.h"

bool has_tiles(const sbni_kernels *k)
{
    bool has = k->product;
    assert_true(!k->images_to_lanes == !has && !k->images_of_lanes == !has);
    assert_true(!k->tiles_weights == !has && !k->tiles_dweights == !has);
    assert_true(!k->tiles_points == !has && !k->tiles_add_points == !has);
    assert_true(!k->tiles_outputs == !has && !k->tiles_of_outputs == !has);
    assert_true(!k->tiles_row_points == !has && !k->tiles_row_of_outputs == !has);
    assert_true(!k->tiles_products == !has);
    assert_true(has || !strcmp(k->isa, "base"));
    if (!has) record_nothing();
    return has;
}

sbni_frame frame_for(int64_t c, int64_t pad, int64_t h, int64_t w)
{
    return (sbni_frame){pad, h, w, h * w, c * h * w};
}

int64_t points_size(int64_t points, int64_t c, int64_t tiles)
{
    return (points - 1) * sbni_points_apart(c, tiles) + c * tiles * IMAGES;
}

void *unwritten(sbn_dtype t, int64_t n)
{
    void *array = malloc((size_t)bytes_of(t, n));
    assert_non_null(array);
    memset(array, 0xff, (size_t)bytes_of(t, n));
    return array;
}

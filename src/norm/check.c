#include "norm/norm.h"

#include <inttypes.h>
#include <stddef.h>

/* What a call may be given: shapes, types, layouts, and who may share memory. */

sbn_status sbni_norm_check_free(const sbn_norm *norm, const char *call)
{
    SBN_CHECK(norm != NULL, SBN_E_ARG, "%s: expected a layer, got NULL", call);
    SBN_CHECK(norm->phase != SBNI_NORM_FORWARD && norm->phase != SBNI_NORM_BACKWARD &&
                  !norm->fixed_begun,
              SBN_E_STATE, "%s: %s while a begin waits for its end", norm->name, call);
    return SBN_OK;
}

sbn_status sbni_norm_choose_form(const sbn_tensor *const *views, int count, bool *planes)
{
    bool all_planes = true, all_rows = true, pixels = false;
    for (int i = 0; i < count; i++) {
        if (!views[i] || !views[i]->data) continue;
        all_planes &= sbni_tensor_has_planes(views[i]);
        all_rows &= sbni_tensor_has_rows(views[i]);
        pixels |= sbni_tensor_s(views[i]) > 1;
    }
    SBN_CHECK(all_planes || all_rows, SBN_E_ARG,
              "expected one layout in all tensors of a call: neighbouring pixels (NCHW) "
              "or neighbouring channels (NHWC), got both");
    *planes = all_planes && (pixels || !all_rows);
    return SBN_OK;
}

bool sbni_norm_reads_x(const sbn_norm *norm, sbn_norm_mode mode)
{
    if (mode == SBN_NORM_TRAIN) return true;
    return mode == SBN_NORM_FROZEN &&
           (norm->cfg.relu || (norm->cfg.affine && norm->cfg.affine_grad));
}

const sbn_tensor sbni_norm_missing = {0};

sbn_status sbni_norm_check_forward(const sbn_norm *norm, const sbn_tensor *x,
                                   const sbn_tensor *z, const sbn_tensor *y, bool *planes)
{
    SBN_TRY(sbni_tensor_check(x, "x"));
    SBN_TRY(sbni_tensor_check(y, "y"));
    SBN_TRY(sbni_tensor_check_same(x, "x", y, "y"));
    if (z) {
        SBN_TRY(sbni_tensor_check(z == &sbni_norm_missing ? NULL : z, "z"));
        SBN_TRY(sbni_tensor_check_same(x, "x", z, "z"));
    }
    SBN_CHECK(x->dtype == norm->cfg.dtype, SBN_E_ARG,
              "expected elements of the layer's type, got another");
    SBN_CHECK(x->c == norm->cfg.channels, SBN_E_ARG,
              "expected %" PRId64 " channels, got %" PRId64, norm->cfg.channels, x->c);
    if (x->n == 0) {
        *planes = true;
        return SBN_OK;
    }
    bool kept = sbni_norm_reads_x(norm, norm->mode);
    SBN_TRY(sbni_tensor_check_apart(y, "y", x, "x", !kept));
    if (z) SBN_TRY(sbni_tensor_check_apart(y, "y", z, "z", !(kept && norm->cfg.relu)));
    return sbni_norm_choose_form((const sbn_tensor *[]){x, z, y}, 3, planes);
}

/* A gradient written where backward or a later call may still read. */
static sbn_status check_gradient(const sbn_norm *norm, const sbn_tensor *dy,
                                 const sbn_tensor *grad, const char *name)
{
    if (!grad) return SBN_OK;
    SBN_TRY(sbni_tensor_check(grad, name));
    SBN_TRY(sbni_tensor_check_same(dy, "dy", grad, name));
    SBN_TRY(sbni_tensor_check_apart(grad, name, dy, "dy", true));
    if (sbni_norm_reads_x(norm, norm->ran))
        SBN_TRY(sbni_tensor_check_apart(grad, name, &norm->x, "x", false));
    return norm->adds && norm->cfg.relu
               ? sbni_tensor_check_apart(grad, name, &norm->z, "z", false)
               : SBN_OK;
}

sbn_status sbni_norm_check_backward(const sbn_norm *norm, const sbn_tensor *dy,
                                    const sbn_tensor *dx, const sbn_tensor *dz,
                                    bool *planes)
{
    SBN_TRY(sbni_tensor_check(dy, "dy"));
    SBN_TRY(sbni_tensor_check_same(&norm->x, "x", dy, "dy"));
    SBN_TRY(check_gradient(norm, dy, dx, "dx"));
    SBN_TRY(check_gradient(norm, dy, dz, "dz"));
    SBN_CHECK(!dz || norm->adds, SBN_E_ARG,
              "expected no dz after a forward that added nothing");
    if (dx && dz) SBN_TRY(sbni_tensor_check_apart(dx, "dx", dz, "dz", false));
    const sbn_tensor *z = norm->adds && norm->cfg.relu ? &norm->z : NULL;
    return sbni_norm_choose_form((const sbn_tensor *[]){&norm->x, dy, dx, dz, z}, 5,
                                 planes);
}

static sbn_status check_output(const sbn_norm *norm, const sbn_tensor *v,
                               const sbn_tensor *out, const char *name)
{
    if (!out) return SBN_OK;
    SBN_TRY(sbni_tensor_check(out, name));
    SBN_TRY(sbni_tensor_check_same(v, "v", out, name));
    SBN_TRY(sbni_tensor_check_apart(out, name, v, "v", false));
    SBN_TRY(sbni_tensor_check_apart(out, name, &norm->x, "x", false));
    return sbni_tensor_check_apart(out, name, &norm->dy, "dy", false);
}

sbn_status sbni_norm_check_second(const sbn_norm *norm, const sbn_tensor *v,
                                  const sbn_tensor *ddy, const sbn_tensor *gx,
                                  bool *planes)
{
    SBN_TRY(sbni_tensor_check(v, "v"));
    SBN_TRY(sbni_tensor_check_same(&norm->x, "x", v, "v"));
    SBN_CHECK(norm->second.dy_kept, SBN_E_ARG,
              "expected dy as backward read it, but a gradient was written over it");
    SBN_TRY(check_output(norm, v, ddy, "ddy"));
    SBN_TRY(check_output(norm, v, gx, "gx"));
    if (ddy && gx) SBN_TRY(sbni_tensor_check_apart(ddy, "ddy", gx, "gx", false));
    return sbni_norm_choose_form((const sbn_tensor *[]){&norm->x, &norm->dy, v, ddy, gx},
                                 5, planes);
}

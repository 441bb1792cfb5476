#include <inttypes.h>
#include <math.h>

#include "nn/layer.h"

/* Where NaN or infinity came from: forward once more, layer by layer, by this process
 * alone. What forward keeps gets the values that it had. */

/* The first row of a slice in an edge that is not finite; -1: all are. */
static int64_t bad_row(const sbn_model *m, const sbni_edge *edge, sbni_task task)
{
    const void *y = sbni_edge_y(m, edge, task);
    for (int64_t i = 0; i < task.slice.n * edge->count; i++) {
        double v = m->cfg.dtype == SBN_F64 ? ((const double *)y)[i]
                                           : (double)((const float *)y)[i];
        if (!isfinite(v)) return i / edge->count;
    }
    return -1;
}

static sbn_status accuse(const sbn_model *m, const char *name, const char *what,
                         sbni_task task, int64_t row)
{
    return sbni_fail(SBN_E_NONFINITE,
                     "%s: NaN or infinity in its %s, sample %" PRId64 " of the batch",
                     name, what, m->first + task.slice.row + row);
}

static sbn_status check_slice(sbn_model *m, sbni_ops ops, sbni_task task)
{
    for (int i = 0; i < ops.count; i++) {
        const sbni_layer *layer = ops.at[i].layer;
        if (ops.at[i].kind == SBNI_OP_MOMENTS) continue;
        if (ops.at[i].kind == SBNI_OP_APPLY)
            sbni_norm_layer_apply(m, layer, task);
        else
            sbni_layer_ops_of(layer->spec.kind)->forward(m, layer, task);
        int64_t row = bad_row(m, layer->out, task);
        if (row >= 0) return accuse(m, layer->spec.name, "output", task, row);
    }
    return SBN_OK;
}

sbn_status sbni_model_blame(void *model)
{
    sbn_model *m = model;
    for (int r = 0; r < m->runs_done; r++)
        for (int64_t k = 0; k < m->slice_count; k++) {
            sbni_task task = {m->slices[k], k, 0, true};
            int64_t row = r == 0 ? bad_row(m, &m->edges[0], task) : -1;
            if (row >= 0) return accuse(m, "the net", "input", task, row);
            SBN_TRY(check_slice(m, m->runs[r].forward, task));
        }
    return SBN_OK;
}

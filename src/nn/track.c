#include <inttypes.h>
#include <string.h>

#include "core/memory.h"
#include "nn/layer.h"

static sbn_status find(const sbn_model *m, const char *name, const sbni_layer **layer)
{
    char names[256] = "";
    for (int i = 0; i < m->layer_count; i++) {
        *layer = &m->layers[i];
        const char *here = (*layer)->spec.name;
        if ((*layer)->weight < 0) continue;
        if (!strcmp(here, name) && *here) return SBN_OK;
        size_t used = strlen(names);
        if (*here && used + strlen(here) + 2 < sizeof names) {
            if (used) strcat(names, " ");
            strcat(names, here);
        }
    }
    return sbni_fail(
        SBN_E_ARG,
        "track: expected a layer that the net has in this run (%s), got \"%s\"", names,
        name);
}

sbn_status sbni_model_track(sbn_model *m, const char *name, int64_t unit)
{
    const sbni_layer *layer;
    SBN_TRY(find(m, name, &layer));
    SBN_CHECK(unit >= 0 && unit < layer->out->count, SBN_E_ARG,
              "track: expected unit 0 to %" PRId64 " of layer %s, got %" PRId64,
              layer->out->count - 1, name, unit);
    if (!m->track.values)
        SBN_TRY(sbni_alloc(m->capacity, sbn_dtype_bytes(m->cfg.dtype), "tracked values",
                           &m->track.values));
    m->track.layer = layer;
    m->track.unit = unit;
    return SBN_OK;
}

double sbni_model_tracked(const sbn_model *m, int64_t row)
{
    return m->cfg.dtype == SBN_F64 ? ((const double *)m->track.values)[row]
                                   : (double)((const float *)m->track.values)[row];
}

void sbni_track_slice(const sbn_model *m, sbni_task task)
{
    const sbni_track *track = &m->track;
    void *to = sbni_at(m, track->values, task.slice.row);
    if (track->layer->norm) {
        sbn_tensor x = sbni_norm_layer_input(m, track->layer, m->capacity);
        sbni_norm_slice_unit(track->layer->norm, &x, &task.slice, track->unit, to);
        return;
    }
    const void *y = sbni_edge_y(m, track->layer->out, task);
    size_t size = (size_t)sbn_dtype_bytes(m->cfg.dtype);
    for (int64_t k = 0; k < task.slice.n; k++)
        memcpy(sbni_at(m, to, k),
               sbni_at(m, y, k * track->layer->out->count + track->unit), size);
}

sbni_noise sbni_model_noise(const sbn_model *m, int norm, const char **layer)
{
    int i = 0;
    while (!m->layers[i].norm || norm-- > 0) i++;
    *layer = m->layers[i].spec.name;
    return sbni_norm_noise(m->layers[i].norm);
}

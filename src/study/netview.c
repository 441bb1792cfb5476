#include "study/netview.h"

#include <stdio.h>

#include "core/memory.h"

static void look(const sbni_net *net, sbni_netview *view)
{
    static const int candidates[] = {5, 8, 4, 2, 1};
    bool divides[5] = {true, true, true, true, true};
    const sbni_layer_spec *last = NULL;
    for (int i = 0; i < net->count; i++) {
        const sbni_layer_spec *l = &net->layers[i];
        if (l->kind == SBNI_LAYER_CONV || l->kind == SBNI_LAYER_LINEAR) last = l;
        if (l->kind != SBNI_LAYER_NORM || !last) continue;
        for (int k = 0; k < 5; k++)
            divides[k] = divides[k] && last->out % candidates[k] == 0;
        if (l->shortcut) continue;
        snprintf(view->norm, sizeof view->norm, "%s", l->name);
        snprintf(view->before, sizeof view->before, "%s", last->name);
    }
    int k = 0;
    while (!divides[k]) k++;
    view->groups = candidates[k];
}

sbn_status sbni_netview_read(const char *net, sbni_netview *view)
{
    *view = (sbni_netview){.groups = 1};
    char *text = NULL;
    sbni_net parsed = {0};
    SBN_TRY(sbni_net_read(net, &text));
    sbn_status status = sbni_net_parse(net, text, &parsed);
    if (status == SBN_OK) {
        look(&parsed, view);
        sbni_net_free(&parsed);
    }
    sbni_free(text);
    return status;
}

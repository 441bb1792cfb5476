/* What the studies need to know of a net. */
#ifndef SBNI_NETVIEW_H
#define SBNI_NETVIEW_H

#include "nn/netfile.h"

typedef struct sbni_netview {
    int groups; /* of group norm: 5, 8, 4, 2 or 1, the first that divides the channels of
                   all norm lines */
    char norm[SBNI_NET_NAME_BYTES];   /* the last norm line; "" where there is none */
    char before[SBNI_NET_NAME_BYTES]; /* the layer whose output it takes */
} sbni_netview;

/* Of a net by name or file. SBN_E_ARG, SBN_E_DATA, SBN_E_IO. Local. */
sbn_status sbni_netview_read(const char *net, sbni_netview *view);

#endif

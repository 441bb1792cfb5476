/* Net files: text to a list of layers. The grammar is in syncbn/model.h. */
#ifndef SBNI_NETFILE_H
#define SBNI_NETFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

typedef enum sbni_layer_kind {
    SBNI_LAYER_CONV,
    SBNI_LAYER_LINEAR,
    SBNI_LAYER_NORM,
    SBNI_LAYER_MAXPOOL,
    SBNI_LAYER_AVGPOOL,
    SBNI_LAYER_RELU,
    SBNI_LAYER_SIGMOID,
    SBNI_LAYER_DROPOUT,
    SBNI_LAYER_FORK, /* block: its input goes into the branch, and past it */
    SBNI_LAYER_ADD,  /* end: what went past is added */
    SBNI_LAYER_LOGSOFTMAX,
    SBNI_LAYER_GROUPNORM /* no word of its own: a norm line under SBN_MODEL_NORM_GROUP */
} sbni_layer_kind;

enum { SBNI_NET_NAME_BYTES = 48, SBNI_NET_MAX_LAYERS = 1000 };

typedef struct sbni_layer_spec {
    sbni_layer_kind kind;
    char name[SBNI_NET_NAME_BYTES];   /* of layers with parameters, of blocks; else "" */
    bool shortcut;                    /* lies beside the branch of its block */
    int64_t out, kernel, stride, pad; /* pools: kernel is the size; 0: all */
    double rate;                      /* dropout: p */
    int line;
} sbni_layer_spec;

typedef struct sbni_net {
    int64_t c, h, w; /* input */
    int input_line;
    int count;
    sbni_layer_spec
        *layers; /* a block with out=: its shortcut's layers right behind it */
    int open;    /* while parsing: 1 + the index of the block without an end; 0: none */
} sbni_net;

/* The nets that come with the library, as errors and help list them. */
#define SBNI_NET_NAMES "article, cnn, mlp, resnet8, cnn-cifar"

/* The text of a net: by name from those that come with the library, else from a file.
 * Free with sbni_free. SBN_E_ARG: no such net (lists them); SBN_E_IO. */
sbn_status sbni_net_read(const char *net, char **text);

/* The names of those nets whose input is c x h x w, with commas between, into text of so
 * many bytes; "" where there is none. */
void sbni_net_names(int64_t c, int64_t h, int64_t w, char *text, size_t bytes);

/* Parse a text; `source` names it in errors: "source:line:column: expected …, got …".
 * SBN_E_DATA. */
sbn_status sbni_net_parse(const char *source, const char *text, sbni_net *net);
void sbni_net_free(sbni_net *net);

#endif

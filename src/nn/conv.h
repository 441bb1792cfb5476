/* What the parts of a convolution layer share. */
#ifndef SBNI_CONV_H
#define SBNI_CONV_H

#include "nn/layer.h"

sbni_window sbni_conv_window(const sbni_layer_spec *spec);

/* Whether windows are read out of the image itself. By columns dW and dx have other bits;
 * by BLAS and by tiles y has, too. */
bool sbni_conv_is_direct(const sbn_model *model, const sbni_layer *layer);

/* nn/conv_weights.c: add a slice's dW and dbias to the sums; elements of scratch.col that
 * this needs beside columns. */
void sbni_conv_dweights(sbn_model *model, const sbni_layer *layer, sbni_task task);
int64_t sbni_conv_weights_work(const sbn_model *model, const sbni_layer *layer);

#endif

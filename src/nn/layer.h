/*
 * The parts of a model. Layers work slice by slice, so that a slice passes through all
 * layers between two norms while it is in the cache, and so that threads share out
 * slices. Norm layers need sums over the whole batch: they end one run of layers and
 * begin the next. Of a norm layer x is kept; its y is made in the run that needs it,
 * slice by slice, as often as it is needed.
 *
 * Layers stand in an order in which each comes behind those that it takes from, and each
 * edge leads from one layer to one other: a fork has two outputs, an add two inputs.
 */
#ifndef SBNI_LAYER_H
#define SBNI_LAYER_H

#include "comm/gradsync.h"
#include "kernels/kernels.h"
#include "nn/netfile.h"
#include "norm/noise.h"
#include "norm/slices.h"
#include "syncbn/model.h"
#include "syncbn/norm.h"

typedef struct sbni_layer sbni_layer;

/* What flows from one layer to one other: activations y and their gradient dy. An array
 * is whole (a row for each sample of the process) or scratch (SBN_SLICE rows for each
 * thread). */
typedef struct sbni_edge {
    sbni_image shape;
    int64_t count; /* c·h·w */
    void *y, *dy;
    bool y_whole, dy_whole;
    bool wants_dy;          /* there are weights before it */
    const sbni_layer *from; /* whose y it is; NULL: the net's input */
    int run;                /* the first that can have y */
} sbni_edge;

/* A parameter or buffer: the public description and where its gradient is summed. */
typedef struct sbni_param {
    sbn_model_tensor tensor;
    char name[SBNI_NET_NAME_BYTES + 24];
    int64_t offset; /* in the arena; buffers have none: -1 */
    int sync; /* index in the gradient sum; -1: summed by its norm layer, or a buffer */
    int64_t fan_in; /* > 0: initial values uniform in ±1/sqrt(fan_in); 0: one; -1: zero */
} sbni_param;

/* The slice under work. */
typedef struct sbni_task {
    sbni_slice slice;
    int64_t index; /* of the slice in the batch under work */
    int thread;
    bool training;
} sbni_task;

struct sbni_layer {
    sbni_layer_spec spec;
    sbni_edge *in, *out;
    sbni_edge *side;  /* fork: a second output; add, and a norm that adds: what is added;
                         else NULL */
    int run;          /* that it belongs to; a norm: that has its x, and dx */
    int weight, bias; /* indices of parameters; -1: none */
    uint8_t *argmax;  /* maxpool: [capacity][out.count] */
    uint8_t *kept;    /* dropout: [capacity][sbni_mask_bytes(out.count)], a bit each */
    int draws;        /* dropout: its number among the net's */
    bool relu;        /* norm: followed by relu, in the same pass */
    sbn_norm *norm;
    double *mean, *rstd; /* groupnorm: [capacity][groups] */
    bool wants_dx;
    const sbni_layer *pool; /* convolution without dx: the maxpool behind it, out of whose
                               dy it makes dW; else NULL */
    void *points; /* convolution by tiles (nn/winograd.h): [points][out][in]; else NULL */
};

/* Parts of backward. */
enum { SBNI_DX = 1, SBNI_DWEIGHTS = 2 };

/* What is done to a slice. Forward makes y of a norm (apply) where it is needed and sums
 * the x of one (moments); backward sums the dy of a norm (sums), writes dx (dx), and
 * makes y again where it was not kept. */
typedef enum sbni_op_kind {
    SBNI_OP_LAYER,
    SBNI_OP_APPLY,
    SBNI_OP_MOMENTS,
    SBNI_OP_SUMS,
    SBNI_OP_DX
} sbni_op_kind;

typedef struct sbni_op {
    sbni_op_kind kind;
    const sbni_layer *layer;
    int what; /* backward: the parts that it belongs to */
} sbni_op;

typedef struct sbni_ops {
    const sbni_op *at;
    int count;
} sbni_ops;

/* What slices go through between two exchanges of messages, in one go each way. Norms
 * whose moments it takes are exchanged behind its forward, those whose sums it takes
 * behind its backward. */
typedef struct sbni_run {
    sbni_ops forward, backward;
    int segment; /* of the gradient sum, complete with this run's gradients; -1: none */
    bool splits; /* backward goes through the slices twice, for dx and for the weights,
                    with the messages of its norms under way meanwhile */
} sbni_run;

/* One unit of a layer, whose values of the last training forward are kept. */
typedef struct sbni_track {
    const sbni_layer *layer; /* NULL: none */
    int64_t unit;            /* element of (c,h,w) of its output */
    void *values;            /* [capacity] of the model's type */
} sbni_track;

typedef struct sbni_scratch {
    void *col;       /* [largest sbni_conv_work] */
    void *grad;      /* [largest parameter with its bias] */
    int32_t *offset; /* [most elements of a window over all channels, of x or dy, or
                        of a pool's window] */
    double *sums;    /* [2][most channels of a groupnorm] */
} sbni_scratch;

struct sbn_model {
    sbn_model_config cfg;
    char *text;
    sbn_group *group;
    const sbni_kernels *kernels;
    int threads;
    bool overlaps;    /* messages travel while backward goes on */
    bool pokes;       /* and thread 0 may move them from among the others */
    int64_t capacity; /* rows of whole arrays: the largest share */

    int layer_count, dropout_count;
    sbni_layer *layers;
    int edge_count;
    sbni_edge *edges; /* [edge_count] the input first */
    int run_count, segment_count;
    sbni_run *runs; /* [run_count] */
    int op_count;
    sbni_op *ops; /* [op_count] of all runs */

    int param_count; /* parameters, then buffers */
    sbni_param *params;
    sbn_model_tensor *tensors; /* [param_count] the same for the public */
    int64_t arena_count;
    char *arena, *grad_arena;
    sbni_gradsync *sync;

    sbni_slice *slices; /* of the batch under work */
    int64_t slice_count;
    double *slice_loss; /* [slices] */
    int64_t *slice_correct;
    sbni_scratch *scratch; /* [threads] */
    void **owned;          /* buffers of edges */
    int owned_count;
    sbn_model_memory memory; /* of these buffers */

    sbni_track track;

    int runs_done;         /* of the last forward, the one under way included */
    const int32_t *labels; /* NULL: this process has none that are usable */
    double loss_weight;    /* 1 / samples of the batch */
    int64_t vote;          /* travels with the gradients */
    int64_t step;          /* of training, under work or next: names the masks */
    int64_t first;         /* place of this process's first sample in the batch */
};

typedef struct sbni_layer_ops {
    bool needs_x, needs_y; /* in backward */
    bool elementwise;      /* y and dy may lie in the place of x and dx */
    bool sums;             /* has gradients that are summed with those of other layers */
    bool splits;           /* backward makes them apart from dx; else with it */
    /* Shape of the output from that of the input; SBN_E_DATA where the layer does not
     * fit. */
    sbn_status (*shape)(const sbni_layer_spec *spec, sbni_image in, sbni_image *out);
    void (*forward)(sbn_model *model, const sbni_layer *layer, sbni_task task);
    /* what: dx from dy, gradients of the weights from x and dy, or both; those of the
     * weights may come any time after dy is there. */
    void (*backward)(sbn_model *model, const sbni_layer *layer, sbni_task task, int what);
} sbni_layer_ops;

extern const sbni_layer_ops sbni_conv_ops, sbni_linear_ops, sbni_maxpool_ops,
    sbni_avgpool_ops, sbni_relu_ops, sbni_sigmoid_ops, sbni_dropout_ops, sbni_fork_ops,
    sbni_add_ops, sbni_loss_ops, sbni_norm_ops, sbni_groupnorm_ops;
const sbni_layer_ops *sbni_layer_ops_of(sbni_layer_kind kind);

/* Shape of a layer whose output has that of its input; nn/activation.c. */
sbn_status sbni_same_shape(const sbni_layer_spec *spec, sbni_image in, sbni_image *out);

/* Bytes of a mask of one bit an element. */
static inline int64_t sbni_mask_bytes(int64_t count)
{
    return (count + 7) / 8;
}

/* First row of the task's slice in an edge. */
void *sbni_edge_y(const sbn_model *model, const sbni_edge *edge, sbni_task task);
void *sbni_edge_dy(const sbn_model *model, const sbni_edge *edge, sbni_task task);

/* Address behind `count` elements of the model's type. */
static inline void *sbni_at(const sbn_model *model, const void *array, int64_t count)
{
    return (char *)array + count * sbn_dtype_bytes(model->cfg.dtype);
}

/* Add a slice's gradient of a parameter, in scratch.grad, to the sums. */
void sbni_layer_add_grad(sbn_model *model, int param, const void *grad, int thread);

/* nn/conv.c: elements of scratch.col that a convolution needs, and of points; and what it
 * does before the first slice of a forward. */
int64_t sbni_conv_work(const sbn_model *model, const sbni_layer *layer);
int64_t sbni_conv_points(const sbn_model *model, const sbni_layer *layer);
void sbni_conv_prepare(const sbn_model *model, const sbni_layer *layer);

/* Whether dW comes from the dy of a maxpool of that window behind the layer, if there is
 * one; nn/conv_weights.c. */
bool sbni_conv_skips_pool(const sbn_model *model, const sbni_layer *layer, int64_t pool);

/* In the middle of a slice's work: give messages under way a push. */
static inline void sbni_model_poke(const sbn_model *model, sbni_task task)
{
    if (model->pokes && task.thread == 0) sbni_reduce_poke(model->group);
}

/* A norm whose slices meet: it lies between runs. */
static inline bool sbni_layer_meets(const sbni_layer *layer)
{
    return layer && layer->spec.kind == SBNI_LAYER_NORM;
}

static inline const sbni_edge *sbni_model_last(const sbn_model *model)
{
    return model->layers[model->layer_count - 1].out;
}

/* nn/step.c: the first runs on the slices under work. */
sbn_status sbni_model_forward(sbn_model *model, int64_t n, bool training, int runs);

/* nn/track.c: keep what a unit of the named layer, one with parameters, puts out in
 * training: before add and relu of a norm layer. SBN_E_ARG: no such layer or unit;
 * SBN_E_MEMORY. Local. */
sbn_status sbni_model_track(sbn_model *model, const char *layer, int64_t unit);
/* Its values of the last sbn_model_gradient, by this process's samples: row 0 to n-1. */
double sbni_model_tracked(const sbn_model *model, int64_t row);
/* A slice's, once the layer is done with it. */
void sbni_track_slice(const sbn_model *model, sbni_task task);

/* Noise of the statistics of norm layer number `norm`, as in syncbn/model.h, in the last
 * sbn_model_gradient; and the layer's name, owned by the model. */
sbni_noise sbni_model_noise(const sbn_model *model, int norm, const char **layer);

/* nn/shapes.c: the layers that a net's lines become, and what flows between them. */
sbn_status sbni_plan_shapes(sbn_model *model, const sbni_net *net);

/* nn/runs.c: runs and what is done in them, once it is known which arrays are whole. */
sbn_status sbni_plan_runs(sbn_model *model);
sbn_status sbni_plan_ops(sbn_model *model);

/* nn/plan.c: runs, and which arrays are whole; allocates them. */
sbn_status sbni_plan_buffers(sbn_model *model);

/* nn/params.c: tables, arenas, initial values; after the norm layers exist. */
sbn_status sbni_params_create(sbn_model *model);

/* nn/norm_layer.c: the synchronized layers of a model. open is for each forward. */
sbn_status sbni_norm_layers_create(sbn_model *model);
sbn_status sbni_norm_layers_reserve(sbn_model *model);
void sbni_norm_layer_open(const sbn_model *model, const sbni_layer *layer, int64_t n,
                          bool training);
/* Input of a layer, for n samples. */
sbn_tensor sbni_norm_layer_input(const sbn_model *model, const sbni_layer *layer,
                                 int64_t n);
/* One slice: y into the layer above; sums of the x below; sums of dy; dx in its place. */
void sbni_norm_layer_apply(const sbn_model *model, const sbni_layer *layer,
                           sbni_task task);
void sbni_norm_layer_moments(const sbni_layer *layer, sbni_task task);
void sbni_norm_layer_sums(const sbn_model *model, const sbni_layer *layer,
                          sbni_task task);
void sbni_norm_layer_dx(const sbn_model *model, const sbni_layer *layer, sbni_task task);

/* nn/blame.c: SBN_E_NONFINITE with the layer of the last forward in whose output this
 * process's share first was not finite, and the sample; SBN_OK: none was. */
sbn_status sbni_model_blame(void *model);

#endif

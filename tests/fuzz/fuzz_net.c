/* The input is the text of a net. What is accepted must lie within the grammar, must mean
 * the same when it is written anew, and its shapes must be positive or refused. */
#include "fuzz.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "nn/layer.h"

enum { MOST = 65536, LINE_BYTES = 160 };

static const char *const words[] = {"conv",    "linear", "norm",      "maxpool",
                                    "avgpool", "relu",   "sigmoid",   "dropout",
                                    "block",   "end",    "logsoftmax"};

void fuzz_mend(uint8_t *data, size_t size)
{
    /* Whether a text parses hangs on its last layer. */
    static const char end[] = "\nlogsoftmax";
    if (size > sizeof end) memcpy(data + size - strlen(end), end, strlen(end));
}

static bool has_name(sbni_layer_kind kind)
{
    return kind == SBNI_LAYER_CONV || kind == SBNI_LAYER_LINEAR ||
           kind == SBNI_LAYER_NORM || kind == SBNI_LAYER_FORK || kind == SBNI_LAYER_ADD;
}

static bool within(int64_t value, int64_t least)
{
    return value >= least && value <= MOST;
}

static void check_layer(const sbni_net *net, int i)
{
    const sbni_layer_spec *l = &net->layers[i];
    bool conv = l->kind == SBNI_LAYER_CONV, pool = l->kind == SBNI_LAYER_MAXPOOL,
         mean = l->kind == SBNI_LAYER_AVGPOOL, block = l->kind == SBNI_LAYER_FORK;
    FUZZ_CHECK(l->kind <= SBNI_LAYER_LOGSOFTMAX, "kind %d", (int)l->kind);
    FUZZ_CHECK(l->line > (i ? net->layers[i - 1].line : net->input_line) - l->shortcut,
               "layer %d in line %d", i, l->line);
    FUZZ_CHECK((l->kind == SBNI_LAYER_LOGSOFTMAX) == (i == net->count - 1),
               "logsoftmax is layer %d of %d", i, net->count);
    FUZZ_CHECK(conv || l->kind == SBNI_LAYER_LINEAR ? within(l->out, 1)
               : block                              ? within(l->out, 0)
                                                    : l->out == 0,
               "out %lld", (long long)l->out);
    FUZZ_CHECK(conv || pool ? within(l->kernel, 1)
               : mean       ? within(l->kernel, 0)
                            : l->kernel == 0,
               "kernel %lld", (long long)l->kernel);
    FUZZ_CHECK(conv || block ? within(l->stride, 1) : l->stride == 1, "stride %lld",
               (long long)l->stride);
    FUZZ_CHECK(conv ? within(l->pad, 0) : l->pad == 0, "pad %lld", (long long)l->pad);
    FUZZ_CHECK(l->kind == SBNI_LAYER_DROPOUT ? l->rate >= 0 && l->rate < 1 : l->rate == 0,
               "rate %g", l->rate);
    FUZZ_CHECK(!l->shortcut || (i > 0 && (net->layers[i - 1].shortcut ||
                                          net->layers[i - 1].kind == SBNI_LAYER_FORK)),
               "a shortcut of no block");
    size_t length = strnlen(l->name, sizeof l->name);
    FUZZ_CHECK(length < sizeof l->name && has_name(l->kind) == (length > 0),
               "name of %zu bytes", length);
    FUZZ_CHECK(strspn(l->name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                               "0123456789_") == length,
               "name %s", l->name);
    for (int j = 0; length && l->kind != SBNI_LAYER_ADD && j < i; j++)
        FUZZ_CHECK(net->layers[j].kind == SBNI_LAYER_ADD ||
                       strcmp(net->layers[j].name, l->name) != 0,
                   "name %s twice", l->name);
}

/* Blocks open and end in turn, and hold something. */
static void check_blocks(const sbni_net *net)
{
    const sbni_layer_spec *block = NULL;
    int inside = 0;
    for (int i = 0; i < net->count; i++) {
        const sbni_layer_spec *l = &net->layers[i];
        if (l->kind == SBNI_LAYER_ADD) {
            FUZZ_CHECK(block && inside && !strcmp(block->name, l->name), "an end");
            block = NULL;
        } else if (l->kind == SBNI_LAYER_FORK) {
            FUZZ_CHECK(!block, "a block in a block");
            block = l;
            inside = 0;
        } else {
            inside += !l->shortcut;
        }
    }
    FUZZ_CHECK(!block && !net->open, "a block without an end");
}

/* The net as a text of its own; keys in another order than the manual's. */
static char *text_of(const sbni_net *net)
{
    size_t room = (size_t)(net->count + 1) * LINE_BYTES, used;
    char *text = malloc(room);
    FUZZ_CHECK(text, "no memory");
    used = (size_t)snprintf(text, room, "input %lldx%lldx%lld\n", (long long)net->c,
                            (long long)net->h, (long long)net->w);
    for (int i = 0; i < net->count; i++) {
        const sbni_layer_spec *l = &net->layers[i];
        bool conv = l->kind == SBNI_LAYER_CONV, end = l->kind == SBNI_LAYER_ADD;
        char out[32] = "", rest[96] = "";
        if (l->shortcut) continue; /* the block's line stands for it */
        if (l->out) snprintf(out, sizeof out, " out=%lld", (long long)l->out);
        if (conv)
            snprintf(rest, sizeof rest, " pad=%lld kernel=%lld stride=%lld",
                     (long long)l->pad, (long long)l->kernel, (long long)l->stride);
        else if (l->kernel)
            snprintf(rest, sizeof rest, " size=%lld", (long long)l->kernel);
        else if (l->kind == SBNI_LAYER_DROPOUT)
            snprintf(rest, sizeof rest, " p=%.18f", l->rate);
        else if (l->kind == SBNI_LAYER_FORK)
            snprintf(rest, sizeof rest, " stride=%lld", (long long)l->stride);
        used += (size_t)snprintf(text + used, room - used, "%s %s%s%s\n", words[l->kind],
                                 end ? "" : l->name, rest, out);
    }
    return text;
}

static void check_round_trip(const sbni_net *net)
{
    char *text = text_of(net);
    sbni_net copy;
    FUZZ_CHECK(sbni_net_parse("copy", text, &copy) == SBN_OK, "%s: of\n%s",
               sbn_last_error(), text);
    FUZZ_CHECK(copy.c == net->c && copy.h == net->h && copy.w == net->w &&
                   copy.count == net->count,
               "another net: %s", text);
    for (int i = 0; i < net->count; i++) {
        copy.layers[i].line = net->layers[i].line;
        /* eighteen digits are not all of a small rate */
        FUZZ_CHECK(fabs(copy.layers[i].rate - net->layers[i].rate) <= 1e-18, "rate");
        copy.layers[i].rate = net->layers[i].rate;
        FUZZ_CHECK(!memcmp(&copy.layers[i], &net->layers[i], sizeof net->layers[i]),
                   "layer %d is another: %s", i, text);
    }
    sbni_net_free(&copy);
    free(text);
}

/* The shapes that follow, with or without the norm layers: refused, or countable in the
 * int of BLAS. */
static bool check_shapes(const sbni_net *net, bool norm)
{
    sbn_model model = {
        .cfg = {.net = "text", .norm = norm, .dropout = norm ? 0.5 : SBN_DROPOUT_NET}};
    sbn_status status = sbni_plan_shapes(&model, net);
    if (status != SBN_OK) fuzz_check_refusal(status, "text:");
    for (int i = 0; status == SBN_OK && i < model.edge_count; i++) {
        const sbni_edge *e = &model.edges[i];
        FUZZ_CHECK(e->shape.c >= 1 && e->shape.h >= 1 && e->shape.w >= 1 &&
                       e->count == e->shape.c * e->shape.h * e->shape.w &&
                       e->count <= INT32_MAX / 64,
                   "edge %d has %lld elements", i, (long long)e->count);
    }
    for (int i = 0; status == SBN_OK && i < model.layer_count; i++) {
        const sbni_layer *l = &model.layers[i];
        if (l->spec.kind == SBNI_LAYER_LINEAR)
            FUZZ_CHECK(l->in->count * l->spec.out <= INT32_MAX, "weights of layer %d", i);
    }
    sbni_free(model.layers);
    sbni_free(model.edges);
    return status == SBN_OK;
}

/* A refusal names a place that the text has, or the line behind its end. */
static void check_place(sbn_status status, const char *text)
{
    int line = 0, column = 0, used = 0;
    fuzz_check_refusal(status, "text:");
    sscanf(sbn_last_error(), "text:%d:%d: %n", &line, &column, &used);
    FUZZ_CHECK(used && sbn_last_error()[used], "no place in: %s", sbn_last_error());
    const char *start = text;
    for (int i = 1; i < line; i++) {
        const char *newline = strchr(start, '\n');
        FUZZ_CHECK(newline || i == line - 1, "no line %d: %s", line, sbn_last_error());
        start = newline ? newline + 1 : start + strlen(start);
    }
    FUZZ_CHECK(line >= 1 && column >= 1 && column <= (int)strcspn(start, "\n") + 1,
               "no such column: %s", sbn_last_error());
}

static void parse(const char *text)
{
    sbni_net net;
    sbn_status status = sbni_net_parse("text", text, &net);
    if (status != SBN_OK) {
        check_place(status, text);
        FUZZ_CHECK(!net.layers && !net.count, "a refused net has layers");
        return;
    }
    FUZZ_CHECK(within(net.c, 1) && within(net.h, 1) && within(net.w, 1) &&
                   net.input_line >= 1 && net.count >= 1 &&
                   net.count <= SBNI_NET_MAX_LAYERS,
               "input or count");
    for (int i = 0; i < net.count; i++) check_layer(&net, i);
    check_blocks(&net);
    check_round_trip(&net);
    fuzz_accepted += check_shapes(&net, true);
    check_shapes(&net, false);
    sbni_net_free(&net);
}

/* As a file: the same text, or refused for a NUL byte that a text cannot show. */
static void read_file(const char *text, size_t size)
{
    const char *path = fuzz_path("in.net");
    fuzz_write(path, text, size);
    char *got = NULL;
    sbn_status status = sbni_net_read(path, &got);
    if (memchr(text, 0, size)) {
        fuzz_check_refusal(status, path);
        FUZZ_CHECK(!got, "a refused file has a text");
    } else {
        FUZZ_CHECK(status == SBN_OK && !strcmp(got, text), "the file has another text");
    }
    sbni_free(got);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    FUZZ_CHECK(text, "no memory");
    if (size) memcpy(text, data, size);
    text[size] = 0;
    /* The reader clears a megabyte: not for every input. */
    if (size % 16 == 0 || memchr(text, 0, size)) read_file(text, size);
    parse(text);
    free(text);
    return 0;
}

#include "nn/netfile.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/text.h"

enum { MAX_SIZE = 65536, MAX_DIGITS = 20, REAL = -1 };

/* What may stand on a line of one kind. */
static const struct {
    const char *word;
    sbni_layer_kind kind;
    bool named;
    const char *required, *optional; /* keys */
} grammar[] = {
    {"conv", SBNI_LAYER_CONV, true, "out kernel", "stride pad"},
    {"linear", SBNI_LAYER_LINEAR, true, "out", ""},
    {"norm", SBNI_LAYER_NORM, true, "", ""},
    {"maxpool", SBNI_LAYER_MAXPOOL, false, "size", ""},
    {"avgpool", SBNI_LAYER_AVGPOOL, false, "", "size"},
    {"relu", SBNI_LAYER_RELU, false, "", ""},
    {"sigmoid", SBNI_LAYER_SIGMOID, false, "", ""},
    {"dropout", SBNI_LAYER_DROPOUT, false, "p", ""},
    {"block", SBNI_LAYER_FORK, true, "", "out stride"},
    {"end", SBNI_LAYER_ADD, false, "", ""},
    {"logsoftmax", SBNI_LAYER_LOGSOFTMAX, false, "", ""},
};
enum { KINDS = sizeof grammar / sizeof *grammar };

/* Where the value of a key=value word goes. */
static const struct {
    const char *word;
    size_t at;
    int64_t least; /* of whole numbers; REAL: 0 to below 1 */
} keys[] = {
    {"out", offsetof(sbni_layer_spec, out), 1},
    {"kernel", offsetof(sbni_layer_spec, kernel), 1},
    {"size", offsetof(sbni_layer_spec, kernel), 1},
    {"stride", offsetof(sbni_layer_spec, stride), 1},
    {"pad", offsetof(sbni_layer_spec, pad), 0},
    {"p", offsetof(sbni_layer_spec, rate), REAL},
};

typedef struct parser {
    const char *source;
    int line;
    const char *line_start, *at, *end; /* of the line, comment cut off */
} parser;

__attribute__((format(printf, 3, 4))) static sbn_status
complain(const parser *p, const char *at, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return sbni_fail(SBN_E_DATA, "%s:%d:%d: %s", p->source, p->line,
                     (int)(at - p->line_start) + 1, text);
}

/* Next word of the line, "" at its end. */
static void next_word(parser *p, const char **start, int *length)
{
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\t' || *p->at == '\r')) p->at++;
    *start = p->at;
    while (p->at < p->end && *p->at != ' ' && *p->at != '\t' && *p->at != '\r') p->at++;
    *length = (int)(p->at - *start);
}

/* A number at *at within [least, MAX_SIZE]; moves *at behind it. */
static sbn_status number(const parser *p, const char **at, const char *end, int64_t least,
                         const char *what, int64_t *value)
{
    const char *start = *at;
    *value = 0;
    while (*at < end && **at >= '0' && **at <= '9' && *value <= MAX_SIZE)
        *value = *value * 10 + (*(*at)++ - '0');
    if (*at == start || *value < least || *value > MAX_SIZE)
        return complain(p, start,
                        "expected %s as a number from %" PRId64 " to %d, got \"%.*s\"",
                        what, least, MAX_SIZE, (int)(end - start), start);
    return SBN_OK;
}

/* The same of a fraction of 0 to below 1, in digits and at most one point. */
static sbn_status fraction(const parser *p, const char **at, const char *end,
                           const char *what, double *value)
{
    char digits[MAX_DIGITS + 1] = "";
    size_t n = strspn(*at, "0123456789.");
    if (n > (size_t)(end - *at)) n = (size_t)(end - *at);
    if (n <= MAX_DIGITS) memcpy(digits, *at, n);
    char *rest = digits;
    *value = sbni_text_to_real(digits, &rest);
    if (rest == digits || *rest || *value >= 1)
        return complain(p, *at, "expected %s as a number from 0 to below 1, got \"%.*s\"",
                        what, (int)(end - *at), *at);
    *at += n;
    return SBN_OK;
}

static bool has_word(const char *list, const char *word, int length)
{
    for (const char *at = list; *at;) {
        int n = (int)strcspn(at, " ");
        if (n == length && !strncmp(at, word, (size_t)n)) return true;
        at += n + (at[n] == ' ');
    }
    return false;
}

static sbn_status parse_input(parser *p, sbni_net *net)
{
    const char *word;
    int length;
    next_word(p, &word, &length);
    const char *at = word, *end = word + length;
    int64_t *axis[3] = {&net->c, &net->h, &net->w};
    for (int i = 0; i < 3; i++) {
        if (i > 0 && (at == end || *at != 'x'))
            return complain(p, at,
                            "expected channels x height x width like 1x28x28, got "
                            "\"%.*s\"",
                            length, word);
        at += i > 0;
        SBN_TRY(number(p, &at, end, 1,
                       i == 0   ? "channels"
                       : i == 1 ? "height"
                                : "width",
                       axis[i]));
    }
    if (at != end) return complain(p, at, "unexpected \"%.*s\"", (int)(end - at), at);
    next_word(p, &word, &length);
    if (length) return complain(p, word, "unexpected \"%.*s\"", length, word);
    return SBN_OK;
}

static sbn_status check_name(const parser *p, const char *at, const sbni_net *net,
                             const char *name)
{
    for (int i = 0; i < net->count; i++)
        if (!strcmp(net->layers[i].name, name))
            return complain(p, at, "the name \"%s\" is taken by line %d", name,
                            net->layers[i].line);
    return SBN_OK;
}

static sbn_status parse_name(parser *p, const sbni_net *net, sbni_layer_spec *layer)
{
    const char *word;
    int length;
    next_word(p, &word, &length);
    if (length == 0 || memchr(word, '=', (size_t)length))
        return complain(p, word, "expected a name for this layer");
    if (length >= SBNI_NET_NAME_BYTES)
        return complain(p, word, "a name has at most %d bytes", SBNI_NET_NAME_BYTES - 1);
    for (int i = 0; i < length; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_",
                    word[i]))
            return complain(p, word + i, "a name holds letters, digits and _ only");
    memcpy(layer->name, word, (size_t)length);
    return check_name(p, word, net, layer->name);
}

static sbn_status unexpected_key(const parser *p, const char *word, int length, int kind)
{
    const char *required = grammar[kind].required, *at = grammar[kind].optional;
    bool named = grammar[kind].named;
    char optional[64] = "";
    for (size_t n; *at; at += n + (at[n] == ' ')) {
        n = strcspn(at, " ");
        snprintf(optional + strlen(optional), sizeof optional - strlen(optional),
                 " [%.*s]", (int)n, at);
    }
    return complain(p, word, "unexpected \"%.*s\"; %s takes:%s%s%s%s", length, word,
                    grammar[kind].word, named ? " NAME" : "", *required ? " " : "",
                    *required || *optional || named ? required : " nothing", optional);
}

/* The value of key number `key`. */
static sbn_status parse_value(const parser *p, int key, const char *at, const char *end,
                              sbni_layer_spec *layer)
{
    void *value = (char *)layer + keys[key].at;
    if (keys[key].least == REAL)
        SBN_TRY(fraction(p, &at, end, keys[key].word, value));
    else
        SBN_TRY(number(p, &at, end, keys[key].least, keys[key].word, value));
    if (at != end) return complain(p, at, "unexpected \"%.*s\"", (int)(end - at), at);
    return SBN_OK;
}

/* key=value words up to the end of the line. */
static sbn_status parse_keys(parser *p, int kind, sbni_layer_spec *layer)
{
    char seen[64] = "";
    for (;;) {
        const char *word;
        int length, key = 0;
        next_word(p, &word, &length);
        if (length == 0) break;
        const char *equals = memchr(word, '=', (size_t)length);
        int n = equals ? (int)(equals - word) : length;
        if (!equals || (!has_word(grammar[kind].required, word, n) &&
                        !has_word(grammar[kind].optional, word, n)))
            return unexpected_key(p, word, length, kind);
        if (has_word(seen, word, n))
            return complain(p, word, "%.*s is given twice", n, word);
        snprintf(seen + strlen(seen), sizeof seen - strlen(seen), "%.*s ", n, word);
        while (!has_word(keys[key].word, word, n)) key++;
        SBN_TRY(parse_value(p, key, equals + 1, word + length, layer));
    }
    for (const char *need = grammar[kind].required; *need;) {
        int n = (int)strcspn(need, " ");
        if (!has_word(seen, need, n))
            return complain(p, p->at, "%s needs %.*s=N", grammar[kind].word, n, need);
        need += n + (need[n] == ' ');
    }
    return SBN_OK;
}

static sbn_status append(const parser *p, const char *at, sbni_net *net,
                         const sbni_layer_spec *layer)
{
    if (net->count == SBNI_NET_MAX_LAYERS)
        return complain(p, at, "more than %d layers", SBNI_NET_MAX_LAYERS);
    net->layers[net->count++] = *layer;
    return SBN_OK;
}

/* A layer of a block's shortcut, named after it. */
static sbn_status append_shortcut(const parser *p, const char *at, sbni_net *net,
                                  const char *suffix, sbni_layer_spec layer)
{
    const char *block = net->layers[net->open - 1].name;
    int n = snprintf(layer.name, sizeof layer.name, "%s_%s", block, suffix);
    if (n >= SBNI_NET_NAME_BYTES)
        return complain(p, at, "a name has at most %d bytes, %s_%s has %d",
                        SBNI_NET_NAME_BYTES - 1, block, suffix, n);
    layer.line = p->line;
    layer.shortcut = true;
    SBN_TRY(check_name(p, at, net, layer.name));
    return append(p, at, net, &layer);
}

static sbn_status open_block(const parser *p, const char *at, sbni_net *net,
                             const sbni_layer_spec *block)
{
    if (net->open)
        return complain(p, at, "a block within block \"%s\" of line %d",
                        net->layers[net->open - 1].name, net->layers[net->open - 1].line);
    if (block->stride > 1 && !block->out)
        return complain(p, at, "a block with a stride needs out=N");
    SBN_TRY(append(p, at, net, block));
    net->open = net->count;
    if (!block->out) return SBN_OK;
    sbni_layer_spec conv = {.kind = SBNI_LAYER_CONV,
                            .out = block->out,
                            .kernel = 1,
                            .stride = block->stride},
                    norm = {.kind = SBNI_LAYER_NORM, .stride = 1};
    SBN_TRY(append_shortcut(p, at, net, "conv", conv));
    return append_shortcut(p, at, net, "bn", norm);
}

static sbn_status close_block(const parser *p, const char *at, sbni_net *net,
                              sbni_layer_spec *end)
{
    if (!net->open) return complain(p, at, "an end without a block");
    const sbni_layer_spec *block = &net->layers[net->open - 1],
                          *last = &net->layers[net->count - 1];
    if (last == block || last->shortcut)
        return complain(p, at, "block \"%s\" of line %d has no layers", block->name,
                        block->line);
    memcpy(end->name, block->name, sizeof end->name);
    SBN_TRY(append(p, at, net, end));
    net->open = 0;
    return SBN_OK;
}

static sbn_status append_line(const parser *p, const char *at, sbni_net *net,
                              sbni_layer_spec *layer)
{
    switch (layer->kind) {
    case SBNI_LAYER_FORK:
        return open_block(p, at, net, layer);
    case SBNI_LAYER_ADD:
        return close_block(p, at, net, layer);
    case SBNI_LAYER_LOGSOFTMAX:
        if (net->open)
            return complain(p, at, "block \"%s\" of line %d has no end",
                            net->layers[net->open - 1].name,
                            net->layers[net->open - 1].line);
        return append(p, at, net, layer);
    default:
        return append(p, at, net, layer);
    }
}

static sbn_status parse_line(parser *p, sbni_net *net)
{
    const char *word;
    int length;
    next_word(p, &word, &length);
    if (length == 0) return SBN_OK;
    bool is_input = length == 5 && !strncmp(word, "input", 5);
    if (net->c == 0) {
        if (!is_input)
            return complain(p, word, "expected input as the first line, got \"%.*s\"",
                            length, word);
        net->input_line = p->line;
        return parse_input(p, net);
    }
    if (is_input) return complain(p, word, "a second input");
    if (net->count && net->layers[net->count - 1].kind == SBNI_LAYER_LOGSOFTMAX)
        return complain(p, word, "nothing may follow logsoftmax");
    int kind = 0;
    while (kind < KINDS && !has_word(grammar[kind].word, word, length)) kind++;
    if (kind == KINDS)
        return complain(p, word,
                        "unknown layer \"%.*s\"; expected conv, linear, norm, maxpool, "
                        "avgpool, relu, sigmoid, dropout, block, end or logsoftmax",
                        length, word);
    sbni_layer_spec layer = {.kind = grammar[kind].kind, .stride = 1, .line = p->line};
    if (grammar[kind].named) SBN_TRY(parse_name(p, net, &layer));
    SBN_TRY(parse_keys(p, kind, &layer));
    return append_line(p, word, net, &layer);
}

sbn_status sbni_net_parse(const char *source, const char *text, sbni_net *net)
{
    *net = (sbni_net){0};
    sbn_status status;
    SBN_GOTO(sbni_alloc(SBNI_NET_MAX_LAYERS, sizeof *net->layers, "net", &net->layers));
    parser p = {.source = source};
    for (const char *line = text; *line;) {
        const char *newline = line + strcspn(line, "\n");
        p.line++;
        p.line_start = p.at = line;
        p.end = line + strcspn(line, "\n#");
        SBN_GOTO(parse_line(&p, net));
        line = newline + (*newline == '\n');
    }
    if (net->count == 0 || net->layers[net->count - 1].kind != SBNI_LAYER_LOGSOFTMAX) {
        status = sbni_fail(SBN_E_DATA, "%s:%d:1: expected %s, got the end of the file",
                           source, p.line + 1,
                           net->c == 0 ? "input as the first line"
                                       : "logsoftmax as the last layer");
        goto fail;
    }
    return SBN_OK;
fail:
    sbni_net_free(net);
    return status;
}

void sbni_net_free(sbni_net *net)
{
    sbni_free(net->layers);
    *net = (sbni_net){0};
}

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "nets.h" /* made by Meson from examples/nets */
#include "nn/netfile.h"

enum { MAX_TEXT_BYTES = 1 << 20 };

static const struct {
    const char *name, *text;
} builtin[] = {{"article", SBNI_NET_ARTICLE},
               {"cnn", SBNI_NET_CNN},
               {"mlp", SBNI_NET_MLP},
               {"resnet8", SBNI_NET_RESNET8},
               {"cnn-cifar", SBNI_NET_CNN_CIFAR}};

/* The text ends at its first NUL, which would hide the lines behind it. */
static sbn_status nul_byte(const char *path, const char *text)
{
    int line = 1;
    const char *start = text;
    for (const char *at; (at = strchr(start, '\n')); start = at + 1) line++;
    return sbni_fail(SBN_E_DATA, "%s:%d:%d: expected text, got a NUL byte", path, line,
                     (int)strlen(start) + 1);
}

static sbn_status read_file(const char *path, char **text)
{
    FILE *f = fopen(path, "rb");
    SBN_CHECK(f != NULL, errno == ENOENT ? SBN_E_ARG : SBN_E_IO,
              "net %s: %s; nets that come along: " SBNI_NET_NAMES, path, strerror(errno));
    sbn_status status = sbni_alloc(MAX_TEXT_BYTES + 1, 1, "net", text);
    if (status == SBN_OK) {
        size_t n = fread(*text, 1, MAX_TEXT_BYTES + 1, f);
        if (ferror(f))
            status = sbni_fail(SBN_E_IO, "net %s: %s", path, strerror(errno));
        else if (n > MAX_TEXT_BYTES)
            status = sbni_fail(SBN_E_DATA, "net %s: expected a text of at most %d bytes",
                               path, MAX_TEXT_BYTES);
        else if (memchr(*text, 0, n))
            status = nul_byte(path, *text);
        else
            (*text)[n] = 0;
        if (status != SBN_OK) {
            sbni_free(*text);
            *text = NULL;
        }
    }
    fclose(f);
    return status;
}

sbn_status sbni_net_read(const char *net, char **text)
{
    for (size_t i = 0; i < sizeof builtin / sizeof *builtin; i++)
        if (!strcmp(net, builtin[i].name)) return sbni_copy_string(builtin[i].text, text);
    const char *dot = strrchr(net, '.');
    SBN_CHECK(dot && !strcmp(dot, ".net"), SBN_E_ARG,
              "unknown net \"%s\": expected " SBNI_NET_NAMES
              " or a file that ends in .net",
              net);
    return read_file(net, text);
}

void sbni_net_names(int64_t c, int64_t h, int64_t w, char *text, size_t bytes)
{
    size_t at = 0;
    text[0] = 0;
    for (size_t i = 0; i < sizeof builtin / sizeof *builtin; i++) {
        sbni_net net;
        if (sbni_net_parse(builtin[i].name, builtin[i].text, &net) != SBN_OK) continue;
        if (net.c == c && net.h == h && net.w == w && at < bytes)
            at += (size_t)snprintf(text + at, bytes - at, "%s%s", at ? ", " : "",
                                   builtin[i].name);
        sbni_net_free(&net);
    }
}

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench.h"
#include "kernels/kernels.h"

const char *sbni_bench_next_word(const char **text, int *length)
{
    const char *word = *text;
    if (!word) return NULL;
    *length = (int)strcspn(word, ",");
    *text = word[*length] ? word + *length + 1 : NULL;
    return word;
}

/* A whole number of the text's first bytes, without sign or spaces. */
static bool read_number(const char *text, int length, int64_t *value, int *used)
{
    char *end;
    if (length < 1 || text[0] < '0' || text[0] > '9') return false;
    errno = 0;
    *value = strtoll(text, &end, 10);
    *used = (int)(end - text);
    return errno == 0 && *used <= length;
}

sbn_status sbni_bench_parse_numbers(const char *option, const char *text, int64_t least,
                                    int64_t most, sbni_bench_numbers *list)
{
    int length, used;
    list->n = 0;
    for (const char *word; (word = sbni_bench_next_word(&text, &length));) {
        int64_t v = 0;
        bool good = read_number(word, length, &v, &used) && used == length &&
                    v >= least && v <= most;
        SBN_CHECK(good, SBN_E_ARG,
                  "--%s: expected whole numbers from %" PRId64 " to %" PRId64
                  " with commas between, got \"%.*s\"",
                  option, least, most, length, word);
        int at = 0;
        while (at < list->n && list->value[at] != v) at++;
        SBN_CHECK(at < SBNI_BENCH_LIST, SBN_E_ARG, "--%s: expected at most %d numbers",
                  option, SBNI_BENCH_LIST);
        list->value[at] = v;
        if (at == list->n) list->n++;
    }
    return SBN_OK;
}

sbn_status sbni_bench_parse_words(const char *option, const char *text,
                                  const char *const *words, unsigned *mask)
{
    char known[256] = "";
    int n = 0, length;
    for (size_t at = 0; words[n] && at < sizeof known; n++)
        at += (size_t)snprintf(known + at, sizeof known - at, "%s, ", words[n]);
    *mask = 0;
    for (const char *word; (word = sbni_bench_next_word(&text, &length));) {
        int which = 0;
        while (which < n && !(length == (int)strlen(words[which]) &&
                              !strncmp(word, words[which], (size_t)length)))
            which++;
        bool all = length == 3 && !strncmp(word, "all", 3);
        SBN_CHECK(all || which < n, SBN_E_ARG,
                  "--%s: expected a list of %sor all, got \"%.*s\"", option, known,
                  length, word);
        *mask |= all ? (1u << n) - 1 : 1u << which;
    }
    return SBN_OK;
}

/* Sizes with x between; false where it is no shape of so many axes. */
static bool read_shape(const char *word, int length, int least, int most,
                       sbni_bench_shape *shape)
{
    *shape = (sbni_bench_shape){.axes = 0};
    for (int used;;) {
        int64_t *size = &shape->size[shape->axes];
        if (!read_number(word, length, size, &used) || *size < 1 || *size > INT32_MAX)
            return false;
        shape->axes++;
        if (used == length) return shape->axes >= least;
        if (word[used] != 'x' || shape->axes == most) return false;
        word += used + 1;
        length -= used + 1;
    }
}

sbn_status sbni_bench_parse_shapes(const char *option, const char *text, int least,
                                   int most, const char *what, sbni_bench_shapes *list)
{
    int length;
    for (const char *word; (word = sbni_bench_next_word(&text, &length));) {
        sbni_bench_shape shape;
        SBN_CHECK(read_shape(word, length, least, most, &shape), SBN_E_ARG,
                  "--%s: expected %s, with commas between, got \"%.*s\"", option, what,
                  length, word);
        int at = 0;
        while (at < list->n && memcmp(&list->shape[at], &shape, sizeof shape) != 0) at++;
        SBN_CHECK(at < SBNI_BENCH_LIST, SBN_E_ARG, "--%s: expected at most %d shapes",
                  option, SBNI_BENCH_LIST);
        list->shape[at] = shape;
        if (at == list->n) list->n++;
    }
    return SBN_OK;
}

sbn_status sbni_bench_force_isa(const char *isa)
{
    if (!isa) return SBN_OK;
    char known[64] = "";
    const char *const *names = sbni_kernels_isas();
    for (size_t at = 0; *names && at < sizeof known; names++)
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", at ? ", " : "",
                               *names);
    SBN_CHECK(sbni_kernels_of(isa, SBN_F32), SBN_E_ARG,
              "--isa: expected one that this machine runs (%s), got \"%s\"", known, isa);
    /* the tables are chosen where an object is made */
    SBN_CHECK(setenv("SBN_ISA", isa, 1) == 0, SBN_E_MEMORY, "--isa: no memory");
    return SBN_OK;
}

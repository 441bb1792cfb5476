#include "nn/normkind.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {[SBN_MODEL_NORM_NONE] = "none",
                                    [SBN_MODEL_NORM_BATCH] = "batch",
                                    [SBN_MODEL_NORM_RENORM] = "renorm",
                                    [SBN_MODEL_NORM_GROUP] = "group"};
enum { NAMES = sizeof names / sizeof *names };

sbn_status sbni_normkind_check(sbn_model_norm norm, int64_t groups)
{
    SBN_CHECK((unsigned)norm < NAMES, SBN_E_ARG, "unknown kind of normalization %d",
              (int)norm);
    SBN_CHECK(norm != SBN_MODEL_NORM_GROUP || groups >= 1, SBN_E_ARG,
              "expected 1 group of channels or more, got %" PRId64, groups);
    return SBN_OK;
}

void sbni_normkind_print(sbn_model_norm norm, int64_t groups,
                         char text[SBNI_NORMKIND_BYTES])
{
    if (norm == SBN_MODEL_NORM_GROUP)
        snprintf(text, SBNI_NORMKIND_BYTES, "%s:%" PRId64, names[norm], groups);
    else
        snprintf(text, SBNI_NORMKIND_BYTES, "%s", names[norm]);
}

/* Digits alone: no sign, no space. */
static bool parse_groups(const char *text, int64_t *groups)
{
    size_t digits = strspn(text, "0123456789");
    errno = 0;
    long long value = strtoll(text, NULL, 10);
    if (digits == 0 || text[digits] || errno || value < 1) return false;
    *groups = value;
    return true;
}

sbn_status sbni_normkind_parse(const char *text, sbn_model_norm *norm, int64_t *groups)
{
    for (int i = 0; i < NAMES; i++) {
        size_t length = strlen(names[i]);
        bool grouped = i == SBN_MODEL_NORM_GROUP;
        if (strncmp(text, names[i], length) || text[length] != (grouped ? ':' : 0))
            continue;
        if (grouped && !parse_groups(text + length + 1, groups)) break;
        *norm = (sbn_model_norm)i;
        return SBN_OK;
    }
    return sbni_fail(SBN_E_ARG,
                     "expected " SBNI_NORMKIND_CHOICES " with G from 1, got \"%.40s\"",
                     text);
}

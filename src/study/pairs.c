#include "study/pairs.h"

#include <stdio.h>
#include <string.h>

static int find(const sbni_pairs *pairs, const char *option)
{
    for (int i = 0; i < pairs->n; i++)
        if (!strcmp(pairs->at[i].option, option)) return i;
    return -1;
}

static void drop(sbni_pairs *pairs, const char *option)
{
    int i = find(pairs, option);
    if (i < 0) return;
    pairs->n--;
    memmove(&pairs->at[i], &pairs->at[i + 1], (size_t)(pairs->n - i) * sizeof *pairs->at);
}

sbn_status sbni_pairs_set(sbni_pairs *pairs, const char *option, const char *value)
{
    SBN_CHECK(strlen(option) < SBNI_PAIR_NAME, SBN_E_ARG, "there is no option --%.200s",
              option);
    SBN_CHECK(strlen(value) < SBNI_PAIR_VALUE, SBN_E_ARG,
              "--%s: expected a value of at most %d bytes, got %zu", option,
              SBNI_PAIR_VALUE - 1, strlen(value));
    if (!strcmp(option, "steps")) drop(pairs, "epochs");
    if (!strcmp(option, "epochs")) drop(pairs, "steps");
    int i = find(pairs, option);
    if (i < 0) {
        SBN_CHECK(pairs->n < SBNI_PAIRS, SBN_E_ARG,
                  "--%s: a trial has at most %d settings", option, SBNI_PAIRS);
        i = pairs->n++;
        snprintf(pairs->at[i].option, SBNI_PAIR_NAME, "%s", option);
    }
    snprintf(pairs->at[i].value, SBNI_PAIR_VALUE, "%s", value);
    return SBN_OK;
}

sbn_status sbni_pairs_read(sbni_pairs *pairs, const char *text)
{
    while (*(text += strspn(text, " "))) {
        char option[SBNI_PAIR_NAME], value[SBNI_PAIR_VALUE];
        int name = (int)strcspn(text, "= "), all = (int)strcspn(text, " ");
        SBN_CHECK(name > 0 && name < SBNI_PAIR_NAME && text[name] == '=' &&
                      all - name <= SBNI_PAIR_VALUE,
                  SBN_E_ARG, "expected OPTION=VALUE, got \"%.*s\"", all, text);
        snprintf(option, sizeof option, "%.*s", name, text);
        snprintf(value, sizeof value, "%.*s", all - name - 1, text + name + 1);
        SBN_TRY(sbni_pairs_set(pairs, option, value));
        text += all;
    }
    return SBN_OK;
}

sbn_status sbni_pairs_add(sbni_pairs *pairs, const sbni_pairs *from)
{
    for (int i = 0; i < from->n; i++)
        SBN_TRY(sbni_pairs_set(pairs, from->at[i].option, from->at[i].value));
    return SBN_OK;
}

const char *sbni_pairs_get(const sbni_pairs *pairs, const char *option)
{
    int i = find(pairs, option);
    return i < 0 ? NULL : pairs->at[i].value;
}

sbn_status sbni_pairs_resolve(const sbni_pairs *pairs, sbni_train_settings *settings)
{
    *settings = sbni_train_settings_default();
    for (int i = 0; i < pairs->n; i++)
        SBN_TRY(sbni_options_set(sbni_train_options, pairs->at[i].option,
                                 pairs->at[i].value, settings));
    return sbni_train_settings_resolve(settings);
}

#include "options/options.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/alike.h"
#include "core/text.h"
#include "train/settings.h"

enum {
    FIRST_KEY = 256,
    HELP_KEY = FIRST_KEY + SBNI_MAX_OPTIONS,
    HELP_COLUMN = 30,
    HELP_WIDTH = 90,
    VALUE_BYTES = 512
};

/* Index of a word in a list with | between; -1 when it is none of them. */
static int choice(const char *choices, const char *word)
{
    size_t length = strlen(word);
    for (int i = 0;; i++) {
        size_t n = strcspn(choices, "|");
        if (n == length && !strncmp(choices, word, n)) return i;
        if (!choices[n]) return -1;
        choices += n + 1;
    }
}

static sbn_status parse_int(const sbni_option *o, const char *text, int64_t *value)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    SBN_CHECK(*text && !*end && errno == 0 && (double)v >= o->least, SBN_E_ARG,
              "--%s: expected a whole number from %.0f%s%s, got \"%s\"", o->name,
              o->least, o->choices ? " or " : "", o->choices ? o->choices : "", text);
    *value = v;
    return SBN_OK;
}

static sbn_status parse_real(const sbni_option *o, const char *text, double *value)
{
    char *end, most[32] = "";
    if (o->most > 0) snprintf(most, sizeof most, " to %g", o->most);
    double v = sbni_text_to_real(text, &end);
    bool inside = isfinite(v) && v >= o->least && (o->most <= 0 || v <= o->most);
    SBN_CHECK(*text && !*end && inside, SBN_E_ARG,
              "--%s: expected a number from %g%s%s%s, got \"%s\"", o->name, o->least,
              most, o->choices ? " or " : "", o->choices ? o->choices : "", text);
    *value = v;
    return SBN_OK;
}

static sbn_status parse_seed(const sbni_option *o, const char *text, uint64_t *value)
{
    char *end;
    errno = 0;
    /* not beyond what JSON files hold as a whole number */
    long long v = strtoll(text, &end, 10);
    SBN_CHECK(*text && !*end && errno == 0 && v >= 0, SBN_E_ARG,
              "--%s: expected a whole number from 0 to 2^63-1, got \"%s\"", o->name,
              text);
    *value = (uint64_t)v;
    return SBN_OK;
}

static sbn_status parse_value(const sbni_option *o, const char *text, void *settings)
{
    void *at = (char *)settings + o->offset;
    bool is_word = (o->type == SBNI_OPTION_INT || o->type == SBNI_OPTION_REAL) &&
                   o->choices && choice(o->choices, text) >= 0;
    switch (o->type) {
    case SBNI_OPTION_TEXT:
        SBN_CHECK(*text, SBN_E_ARG, "--%s: expected %s, got nothing", o->name, o->unit);
        *(const char **)at = text;
        return SBN_OK;
    case SBNI_OPTION_INT:
        if (!is_word) return parse_int(o, text, at);
        *(int64_t *)at = (int64_t)o->word_value;
        return SBN_OK;
    case SBNI_OPTION_REAL:
        if (!is_word) return parse_real(o, text, at);
        *(double *)at = o->word_value;
        return SBN_OK;
    case SBNI_OPTION_SEED:
        return parse_seed(o, text, at);
    case SBNI_OPTION_FLAG:
        *(bool *)at = true;
        return SBN_OK;
    case SBNI_OPTION_CHOICE: {
        int which = choice(o->choices, text);
        SBN_CHECK(which >= 0, SBN_E_ARG, "--%s: expected %s, got \"%s\"", o->name,
                  o->choices, text);
        *(int *)at = which;
        return SBN_OK;
    }
    case SBNI_OPTION_LIST: {
        sbni_texts *list = at;
        SBN_CHECK(list->n < (int)(sizeof list->at / sizeof *list->at), SBN_E_ARG,
                  "--%s: given too often", o->name);
        list->at[list->n++] = text;
        return SBN_OK;
    }
    case SBNI_OPTION_TITLE:
        break;
    }
    return SBN_OK;
}

sbn_status sbni_options_set(const sbni_option *options, const char *name,
                            const char *value, void *settings)
{
    const sbni_option *o = options;
    while (o->name && (o->type == SBNI_OPTION_TITLE || strcmp(o->name, name) != 0)) o++;
    SBN_CHECK(o->name, SBN_E_ARG, "there is no option --%s", name);
    SBN_CHECK(o->type != SBNI_OPTION_FLAG || !strcmp(value, "on") ||
                  !strcmp(value, "off"),
              SBN_E_ARG, "--%s: expected on or off, got \"%s\"", name, value);
    SBN_TRY(parse_value(o, value, settings));
    if (o->type == SBNI_OPTION_FLAG && !strcmp(value, "off"))
        *(bool *)((char *)settings + o->offset) = false;
    return SBN_OK;
}

/* The table in getopt's form; titles are left out. */
static void fill_long(const sbni_option *options, struct option *list)
{
    int n = 0;
    for (int i = 0; options[i].name && n < SBNI_MAX_OPTIONS; i++)
        if (options[i].type != SBNI_OPTION_TITLE)
            list[n++] = (struct option){
                options[i].name,
                options[i].type == SBNI_OPTION_FLAG ? no_argument : required_argument,
                NULL, FIRST_KEY + i};
    list[n++] = (struct option){"help", no_argument, NULL, HELP_KEY};
    list[n] = (struct option){0};
}

static sbn_status complain(const sbni_command *command, int key, char **argv)
{
    const char *word = argv[optind - 1];
    char letter[] = {'-', (char)optopt, 0};
    const char *problem = "unknown option";
    if (key == ':') {
        problem = "a value is missing after";
    } else if (optopt > 0 && optopt < FIRST_KEY) { /* perhaps within -abc */
        word = letter;
    } else if (optopt >= FIRST_KEY) {
        problem = "no value belongs to";
    } else {
        size_t length = strcspn(word, "=");
        for (const sbni_option *o = command->options; length > 2 && o->name; o++)
            if (o->type != SBNI_OPTION_TITLE && !strncmp(o->name, word + 2, length - 2))
                problem = "several options begin with";
    }
    return sbni_fail(SBN_E_ARG, "%s %s; syncbn %s --help lists the options", problem,
                     word, command->name);
}

static sbn_status parse(const sbni_command *command, int argc, char **argv,
                        void *settings, sbni_arguments *arguments)
{
    struct option list[SBNI_MAX_OPTIONS + 2];
    fill_long(command->options, list);
    *arguments = (sbni_arguments){0};
    opterr = 0;
    optind = 0; /* begin anew, also after an earlier parse */
    for (int key; (key = getopt_long(argc, argv, "-:h", list, NULL)) != -1;) {
        if (key == 'h' || key == HELP_KEY) {
            arguments->help = true;
        } else if (key == 1) {
            SBN_CHECK(arguments->count < command->most_words, SBN_E_ARG,
                      "unexpected argument \"%s\"; syncbn %s --help lists the options",
                      optarg, command->name);
            arguments->words[arguments->count++] = optarg;
        } else if (key >= FIRST_KEY) {
            arguments->given[key - FIRST_KEY] = optarg ? optarg : "on";
            SBN_TRY(parse_value(&command->options[key - FIRST_KEY], optarg, settings));
        } else {
            return complain(command, key, argv);
        }
    }
    SBN_CHECK(optind == argc, SBN_E_ARG,
              "unexpected argument \"%s\"; syncbn %s --help lists the options",
              argv[optind], command->name);
    return SBN_OK;
}

static void print_choice(const char *choices, int which, char *text)
{
    for (; which > 0; which--) choices += strcspn(choices, "|") + 1;
    snprintf(text, VALUE_BYTES, "%.*s", (int)strcspn(choices, "|"), choices);
}

static void print_value(const sbni_option *o, const void *settings, char *text)
{
    const void *at = (const char *)settings + o->offset;
    switch (o->type) {
    case SBNI_OPTION_TEXT: {
        const char *value = *(const char *const *)at;
        snprintf(text, VALUE_BYTES, "%s", value ? value : "(none)");
        break;
    }
    case SBNI_OPTION_INT:
        snprintf(text, VALUE_BYTES, "%" PRId64, *(const int64_t *)at);
        break;
    case SBNI_OPTION_SEED:
        snprintf(text, VALUE_BYTES, "%" PRIu64, *(const uint64_t *)at);
        break;
    case SBNI_OPTION_REAL:
        sbni_text_real(*(const double *)at, text, VALUE_BYTES);
        break;
    case SBNI_OPTION_FLAG:
        snprintf(text, VALUE_BYTES, "%s", *(const bool *)at ? "on" : "off");
        break;
    case SBNI_OPTION_CHOICE:
        print_choice(o->choices, *(const int *)at, text);
        break;
    case SBNI_OPTION_LIST: {
        const sbni_texts *list = at;
        int used = 0;
        for (int i = 0; i < list->n && used < VALUE_BYTES; i++)
            used += snprintf(text + used, (size_t)(VALUE_BYTES - used), "%s%s",
                             i ? " " : "", list->at[i]);
        break;
    }
    case SBNI_OPTION_TITLE:
        text[0] = 0;
        break;
    }
}

static sbn_status compare(const sbni_command *command, const void *settings,
                          const sbni_arguments *arguments, sbn_group *group)
{
    const sbni_option *o = command->options;
    char values[SBNI_MAX_OPTIONS][VALUE_BYTES] = {0}, words[VALUE_BYTES];
    sbni_named list[SBNI_MAX_OPTIONS];
    int n = 0;
    for (int i = 0; o[i].name && i < SBNI_MAX_OPTIONS; i++) {
        if (o[i].type == SBNI_OPTION_TITLE) continue;
        print_value(&o[i], settings, values[n]);
        list[n] = (sbni_named){o[i].name, values[n]};
        n++;
    }
    snprintf(words, sizeof words, "\"%s\"%s", arguments->count ? arguments->words[0] : "",
             arguments->help ? " --help" : "");
    SBN_TRY(sbni_alike(group, "--", list, n));
    return sbni_compare_text(group, "the argument", words);
}

sbn_status sbni_options_parse(const sbni_command *command, int argc, char **argv,
                              void *settings, sbni_arguments *arguments, sbn_group *group)
{
    SBN_TRY(sbn_group_agree(group, parse(command, argc, argv, settings, arguments)));
    return compare(command, settings, arguments, group);
}

bool sbni_options_given(const sbni_command *command, const sbni_arguments *arguments,
                        const char *name)
{
    for (int i = 0; command->options[i].name; i++)
        if (!strcmp(command->options[i].name, name)) return arguments->given[i] != NULL;
    return false;
}

/* Words of a text from the current column on, wrapped under HELP_COLUMN. */
static void print_wrapped(const char *text, int column)
{
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (column + n > HELP_WIDTH && column > HELP_COLUMN) {
            printf("\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        }
        printf("%.*s ", n, text);
        column += n + 1;
        text += n + (text[n] == ' ');
    }
    printf("\n");
}

void sbni_options_help(const sbni_command *command)
{
    printf("Usage: syncbn %s\n%s\n", command->usage, command->about);
    for (const sbni_option *o = command->options; o->name; o++) {
        if (o->type == SBNI_OPTION_TITLE) {
            printf("\n%s:\n", o->name);
            continue;
        }
        int column =
            printf("  --%s%s%s", o->name, o->unit ? "=" : "", o->unit ? o->unit : "");
        if (column < HELP_COLUMN)
            printf("%*s", HELP_COLUMN - column, "");
        else
            printf("\n%*s", HELP_COLUMN, "");
        print_wrapped(o->help, HELP_COLUMN);
    }
    printf("\n  -h, --help%*sprint this help\n", HELP_COLUMN - 12, "");
}

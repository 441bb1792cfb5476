/* One table of options for parsing, defaults and help. */
#ifndef SBNI_OPTIONS_H
#define SBNI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"
#include "syncbn/group.h"

/* Rows of a table, titles included. */
enum { SBNI_MAX_OPTIONS = 120 };

typedef enum sbni_option_type {
    SBNI_OPTION_TEXT,   /* const char * */
    SBNI_OPTION_INT,    /* int64_t, from least up */
    SBNI_OPTION_SEED,   /* uint64_t */
    SBNI_OPTION_REAL,   /* double, finite */
    SBNI_OPTION_FLAG,   /* bool, set when given */
    SBNI_OPTION_CHOICE, /* int: index of the word in choices */
    SBNI_OPTION_LIST,   /* sbni_texts: each time it is given, one more */
    SBNI_OPTION_TITLE   /* no option: a heading of the help */
} sbni_option_type;

/* Values of an option that may be given several times. */
typedef struct sbni_texts {
    const char *at[16];
    int n;
} sbni_texts;

typedef struct sbni_option {
    const char *name; /* without the dashes; heading for a title */
    sbni_option_type type;
    size_t offset;    /* of the value in the command's settings */
    const char *unit; /* what stands for the value in the help */
    const char *help; /* with its default */
    const char
        *choices; /* words with | between; for INT and REAL: a word for `word_value` */
    double least; /* INT and REAL: smallest value */
    double word_value; /* value that the word of an INT or REAL means */
    double most;       /* REAL: largest value; 0: none */
} sbni_option;

/* Option --stall-limit of the commands that wait for each other for long. */
enum { SBNI_STALL_LIMIT_S = 600 };
#define SBNI_STALL_OPTION(offset)                                                        \
    {                                                                                    \
        "stall-limit", SBNI_OPTION_REAL, offset, "SECONDS|none",                         \
            "end with exit code 86 where a process has waited so long for others in "    \
            "one "                                                                       \
            "message; more than the longest that one works alone, as on reading the "    \
            "data "                                                                      \
            "(default 600)",                                                             \
            "none", 0.1, 0, 0                                                            \
    }

typedef struct sbni_command {
    const char *name, *usage, *about;
    const sbni_option *options; /* ends with a NULL name */
    int most_words;             /* arguments that are not options */
} sbni_command;

typedef struct sbni_arguments {
    const char *words[2]; /* arguments that are not options */
    int count;
    bool help;
    /* by place in the table: the value as it was given, "on" of a flag; NULL: not given
     */
    const char *given[SBNI_MAX_OPTIONS];
} sbni_arguments;

/* What --shift takes, for the tables that have it. */
#define SBNI_SHIFT_UNIT "KIND:X[,..]"
#define SBNI_SHIFT_HELP                                                                  \
    "contrast:FACTOR, noise:DEVIATION, blur:DEVIATION in pixels, invert:1; pixels are "  \
    "0 "                                                                                 \
    "to 1, several kinds are done in order (default none)"

/* Parse argv (argv[0] is the command) into settings, which must come out alike on all
 * processes. SBN_E_ARG names option, expected and got; SBN_E_MISMATCH the option that
 * differs. @collective */
sbn_status sbni_options_parse(const sbni_command *command, int argc, char **argv,
                              void *settings, sbni_arguments *arguments,
                              sbn_group *group);

/* Set the option of that name, in full, from its value as text; a flag by "on". SBN_E_ARG
 * names option, expected and got; or says that the table has no such option. Local. */
sbn_status sbni_options_set(const sbni_option *options, const char *name,
                            const char *value, void *settings);

/* Whether the option of that name was given. */
bool sbni_options_given(const sbni_command *command, const sbni_arguments *arguments,
                        const char *name);

/* Print the command's help to stdout. */
void sbni_options_help(const sbni_command *command);

#endif

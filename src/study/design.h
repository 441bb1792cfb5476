/* A study as data: methods, what varies, seeds; and the trials that follow from them. */
#ifndef SBNI_DESIGN_H
#define SBNI_DESIGN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "study/netview.h"
#include "study/pairs.h"

enum { SBNI_KEY_BYTES = 160, SBNI_ARM_NAME = 160 };

typedef struct sbni_design sbni_design;
struct sbni_summary;

typedef enum sbni_figure_kind {
    SBNI_FIGURE_POINTS, /* a metric against what the study varies, with intervals */
    SBNI_FIGURE_STEPS,  /* a record of the runs against the step, means of the seeds */
    SBNI_FIGURE_BAND,   /* 15th, 50th, 85th percentile against the step, first seed */
    SBNI_FIGURE_WORDS   /* metrics side by side, each with a word below */
} sbni_figure_kind;

/* Axes of logarithms; fractions as percents; also the line on which y·x is what it is at
 * the first point. */
enum { SBNI_LOG_X = 1, SBNI_LOG_Y = 2, SBNI_PERCENT = 4, SBNI_PERFECT = 8 };

/* One picture. Metrics with a | between; of STEPS "KIND.FIELD"; of WORDS the beginning of
 * their names, the rest is the word. */
typedef struct sbni_figure {
    const char *file, *title, *x, *y; /* x: NULL: the study's */
    sbni_figure_kind kind;
    const char *metrics, *names; /* names: what the legend adds for each */
    int look;                    /* of the values above, summed */
} sbni_figure;

/* A table: one metric, a row for each value, a column for each method. */
typedef struct sbni_table {
    const char *metric, *title;
    bool percent, differences; /* differences: also from the first method, paired */
} sbni_table;

/* What a study is. Texts of settings as sbni_pairs_read takes them. */
typedef struct sbni_study {
    const char *name, *title, *question, *design, *source;
    const char *notes;        /* how to read the result, Markdown list */
    const char *common;       /* settings of all trials */
    const char *full, *quick; /* those that differ */
    int seeds[2];             /* full, quick */
    const char *x;            /* what varies, for axes and tables */
    const char *search;       /* metric whose smallest mean chooses among points with one
                                 x; NULL: points are all different */
    void (*build)(sbni_design *design, bool quick);
    void (*find)(const struct sbni_summary *summary, FILE *text); /* what was found */
    const sbni_table *tables;   /* end with a NULL metric */
    const sbni_figure *figures; /* end with a NULL file */
    int early;                  /* evaluations kept one by one, from the first */
} sbni_study;

/* A method: a column, a curve. */
typedef struct sbni_arm {
    char name[SBNI_ARM_NAME];
    bool flat; /* nothing of x has an effect on it: one point, drawn across */
    sbni_pairs settings;
} sbni_arm;

/* A method at one value of what varies. */
typedef struct sbni_point {
    int arm;
    double x, z; /* z: of the search */
    sbni_pairs settings;
    int *trial; /* by seed */
} sbni_point;

/* One training run. Points with the same settings share it. */
typedef struct sbni_trial {
    char key[SBNI_KEY_BYTES]; /* its settings where trials differ; names its folder */
    sbni_pairs settings;      /* all */
    sbni_train_settings run;
    uint64_t seed;
    int64_t n_train; /* samples */
    double cost;     /* about as the time it takes */
} sbni_trial;

enum { SBNI_ARMS = 48, SBNI_SHIFTS = 16, SBNI_X_WORDS = 32, SBNI_HEARD = 8 };

struct sbni_design {
    const sbni_study *study;
    bool quick;
    int seeds;
    uint64_t first_seed;
    sbni_pairs base;
    sbni_arm *arms;
    sbni_point *points;
    sbni_trial *trials;
    int n_arms, n_points, n_trials;
    sbni_netview net;       /* that all trials have unless it varies */
    const sbni_texts *vary; /* of the user, for a grid */
    char x[SBNI_ARM_NAME];  /* what varies, for axes and tables */
    char x_words[SBNI_X_WORDS][SBNI_PAIR_NAME]; /* names of x = 0, 1, …, where it is no
                                                   number */
    const char *shift[SBNI_SHIFTS]; /* after training, settings of evaluations */
    int n_shifts;
    char heard[SBNI_HEARD][SBNI_PAIR_NAME]; /* options that points were made from */
    int n_heard;
    sbn_status status; /* of the building so far */
};

/* What is asked for. */
typedef struct sbni_request {
    const sbni_study *study;
    bool quick;
    int seeds;        /* 0: the study's */
    sbni_pairs given; /* the user's settings, over the study's own; none that it varies */
    sbni_texts vary;  /* of a grid: OPTION=VALUE,VALUE… */
} sbni_request;

/* Build a study. The request has to outlive it.
 * @errors SBN_E_ARG (a setting, or none such for training), SBN_E_DATA, SBN_E_MEMORY.
 * Local. */
sbn_status sbni_design_create(const sbni_request *request, sbni_design **design);

/* Free and null; NULL is fine. */
void sbni_design_destroy(sbni_design **design);

/* For the functions that build: a method (its number), and a method at a value; what
 * fails is found at the end. */
int sbni_design_arm(sbni_design *design, const char *name, const char *settings);
__attribute__((format(printf, 4, 5))) void
sbni_design_point(sbni_design *design, int arm, double x, const char *format, ...);
/* The same with a value of the search. */
__attribute__((format(printf, 5, 6))) void sbni_design_search(sbni_design *design,
                                                              int arm, double x, double z,
                                                              const char *format, ...);
/* Number that a setting of all trials has, from which the study makes its points: so it
 * is the user's to give even where points set it. */
double sbni_design_number(sbni_design *design, const char *option, double otherwise);

/* Whether two options set the same thing: one of them twice, or epochs and steps. */
bool sbni_design_same(const char *option, const char *other);

/* A value of what varies, as tables show it. */
void sbni_design_put_x(const sbni_design *design, double x, FILE *text);

/* The whole of it as text: what two studies have in common when they are the same. Freed
 * with free. */
sbn_status sbni_design_print(const sbni_design *design, char **text);

#endif

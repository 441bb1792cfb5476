/* Sentences from numbers. */
#ifndef SBNI_FINDING_H
#define SBNI_FINDING_H

#include "study/summary.h"

/* "12.3 %", "12.3 % (12.1 to 12.5)" of a mean in 0 … 1. */
void sbni_put_percent(FILE *text, const sbni_sample *s);

/* "4.1 points higher than WHAT (3.8 to 4.4)", or "the same as WHAT within the noise
 * (difference -0.1 to 0.2 points)" of a paired difference. */
void sbni_put_difference(FILE *text, const sbni_sample *difference, const char *what);

/* A number in short. */
void sbni_put_number(FILE *text, double value);

/* What all points of a method say of a metric: place of the smallest mean, −1 of none. */
int sbni_best_point(const sbni_summary *summary, int arm, const char *metric);

/* Values of x at which the mean is within `margin` of the least of all methods: the first
 * and the last of the run of neighbours around the method's own best; false: none is. */
bool sbni_good_range(const sbni_summary *summary, int arm, const char *metric,
                     double margin, double range[2]);

/* "This agrees with SOURCE: CLAIM." or "This does not agree with SOURCE, where CLAIM."
 * or, undecided, that the noise leaves it open. `holds`: 1, −1, 0. */
void sbni_put_verdict(FILE *text, int holds, const char *source, const char *claim);

/* 1: all hold, −1: one does not, else 0. */
int sbni_all_hold(const int *holds, int n);

#endif

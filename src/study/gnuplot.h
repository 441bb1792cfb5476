/* Pictures by gnuplot, which is a program of its own. */
#ifndef SBNI_STUDY_GNUPLOT_H
#define SBNI_STUDY_GNUPLOT_H

#include <stdbool.h>
#include <stdio.h>

#include "core/status.h"

bool sbni_gnuplot_found(void);

/* A text in its single quotes. */
void sbni_gnuplot_quote(FILE *script, const char *text);

/* Draw what the file `script` says into the file `path`, replaced whole; terminal: as its
 * set terminal takes it, without double quotes. @errors SBN_E_IO, SBN_E_MEMORY. Local. */
sbn_status sbni_gnuplot_draw(const char *script, const char *terminal, const char *path);

#endif

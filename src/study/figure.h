/* Pictures of a study, drawn by gnuplot. */
#ifndef SBNI_STUDY_FIGURE_H
#define SBNI_STUDY_FIGURE_H

#include "study/summary.h"

/**
 * Write a figure's data and commands to out/FILE.gp and have gnuplot draw out/FILE.svg,
 * out/FILE.png and, for terminals, out/FILE.txt from it.
 * @param draw  false: the script alone.
 * @errors SBN_E_IO, SBN_E_MEMORY, SBN_E_ARG. Local.
 */
sbn_status sbni_figure_draw(const sbni_summary *summary, const sbni_figure *figure,
                            const char *out, bool draw);

/** Remove the temporaries of its files. SBN_E_IO, SBN_E_ARG. Local. */
sbn_status sbni_figure_clean(const sbni_figure *figure, const char *out);

#endif

/* What a study leaves to read: report.md, and the same in short on the terminal. */
#ifndef SBNI_STUDY_REPORT_H
#define SBNI_STUDY_REPORT_H

#include "study/summary.h"

/* Write out/report.md beside the figures: no byte of it depends on the number of
 * processes, on times, or on what happened on the way.
 * @param pictures  whether the figures were drawn. Local. */
sbn_status sbni_report_write(const sbni_summary *summary, const sbni_request *request,
                             const char *out, bool pictures);

/* Print what was found and the first figure. */
void sbni_report_print(const sbni_summary *summary, const char *out, bool pictures);

#endif

/* What the program does when its processes stand still. */
#ifndef SBNI_CLI_STALL_H
#define SBNI_CLI_STALL_H

#include "syncbn/watch.h"

/* Print who is missing and end this process with 86; the launcher ends the others. */
void sbni_stalled(const sbn_stall *stall, void *context);

#endif

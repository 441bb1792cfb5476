/* What the program does when its processes stand still. */
#ifndef SBNI_CLI_STALL_H
#define SBNI_CLI_STALL_H

#include "syncbn/watch.h"

/* The limit of the command line, which is read before its options are: seconds; 0: none. */
double sbni_stall_limit(int argc, char **argv);

/* No watch sees how MPI itself starts: between the two calls, this process ends with 86
 * after limit_s of its own time, rounded up; 4 seconds later process 1, which speaks
 * where 0 stands still, and 6 later the others, which don't. */
void sbni_stall_at_start(double limit_s);
void sbni_stall_started(void);

/* Print who is missing and end this process with 86; the launcher ends the others.
 * context: NULL, or a text to add about the numbers of the processes. */
void sbni_stalled(const sbn_stall *stall, void *context);

#endif

/* What the program does when its processes stand still. */
#ifndef SBNI_CLI_STALL_H
#define SBNI_CLI_STALL_H

#include "syncbn/watch.h"

/* The limit of the command line, which is read before its options are: seconds; 0: none.
 */
double sbni_stall_limit(int argc, char **argv);

/* Print a line, end this process with 86; from a thread beside the one that waits: by no
 * stream of stdio, which that one may hold, and without what a normal end does. */
void sbni_stall_say(const char *line);
_Noreturn void sbni_stall_end(void);

/* Print who is missing and end this process with 86; the launcher ends the others.
 * context: NULL, or a text to add about the numbers of the processes. */
void sbni_stalled(const sbn_stall *stall, void *context);

#endif

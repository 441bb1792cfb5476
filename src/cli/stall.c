#include "cli/stall.h"

#include <stdio.h>
#include <unistd.h>

enum { STALLED = 86 };

/* In the watch's thread, while the other waits: no stream of stdio, which that one may
 * hold, and nothing of what a normal end does. */
void sbni_stalled(const sbn_stall *stall, void *context)
{
    char line[2048];
    (void)context;
    if (stall->speaks) {
        int n = snprintf(line, sizeof line,
                         "syncbn: no progress in %s; go on with --resume, or allow more "
                         "time by --stall-limit\n",
                         stall->text);
        if (write(STDERR_FILENO, line, (size_t)n) < 0) _exit(STALLED);
    }
    _exit(STALLED);
}

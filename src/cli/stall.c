#include "cli/stall.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "options/options.h"

enum { STALLED = 86 };

/* Whether an argument, up to its =, is the option, which may be given short. */
static bool is_stall_limit(const char *argument)
{
    static const char option[] = "--stall-limit", least[] = "--sta";
    size_t length = strcspn(argument, "=");
    return length >= sizeof least - 1 && length < sizeof option &&
           !strncmp(argument, option, length);
}

double sbni_stall_limit(int argc, char **argv)
{
    const char *text = NULL;
    for (int i = 2; i < argc; i++) {
        if (!is_stall_limit(argv[i])) continue;
        const char *value = strchr(argv[i], '=');
        text = value ? value + 1 : argv[i + 1];
    }
    if (!text) return SBNI_STALL_LIMIT_S;
    if (!strcmp(text, "none")) return 0;
    char *end;
    double limit_s = strtod(text, &end);
    /* another text is refused later, with all options */
    return *end == 0 && limit_s > 0 && isfinite(limit_s) ? limit_s : SBNI_STALL_LIMIT_S;
}

void sbni_stall_say(const char *line)
{
    if (write(STDERR_FILENO, line, strlen(line)) < 0) _exit(STALLED);
}

_Noreturn void sbni_stall_end(void)
{
    _exit(STALLED);
}

void sbni_stalled(const sbn_stall *stall, void *context)
{
    char line[2048];
    const char *whom = context ? context : "";
    snprintf(line, sizeof line,
             "syncbn: no progress in %s%s; go on with --resume, or allow more time by "
             "--stall-limit\n",
             stall->text, whom);
    if (stall->speaks) sbni_stall_say(line);
    sbni_stall_end();
}

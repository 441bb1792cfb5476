#include "core/text.h"

#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* From begin to end numbers of this thread have a point. */
typedef struct plain {
    locale_t mine, before;
} plain;

static plain begin_plain(void)
{
    /* that of C is always there; without it nothing changes */
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return (plain){c, uselocale(c)};
}

static void end_plain(plain p)
{
    uselocale(p.before);
    if (p.mine) freelocale(p.mine);
}

void sbni_text_real(double value, char *text, int64_t bytes)
{
    plain p = begin_plain();
    /* %g drops trailing zeros, so 15 digits are also the shortest form of fewer */
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, (size_t)bytes, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    end_plain(p);
}

double sbni_text_to_real(const char *text, char **end)
{
    plain p = begin_plain();
    double value = strtod(text, end);
    end_plain(p);
    return value;
}

void sbni_text_processes(const uint8_t *in, int n, char *text, int64_t bytes)
{
    const char *more = ", …";
    int64_t room = bytes - (int64_t)strlen(more) - 1, length;
    int count = 0;
    for (int i = 0; i < n; i++) count += in[i] != 0;
    length = snprintf(text, (size_t)bytes, "process%s", count == 1 ? "" : "es");
    const char *before = " ";
    for (int i = 0, last; i < n; i = last + 1) {
        last = i;
        if (!in[i]) continue;
        while (last + 1 < n && in[last + 1]) last++;
        char range[32];
        int more_bytes = last == i ? snprintf(range, sizeof range, "%s%d", before, i)
                                   : snprintf(range, sizeof range, "%s%d%s%d", before, i,
                                              last == i + 1 ? ", " : "-", last);
        if (length + more_bytes > room) {
            strcpy(text + length, more);
            return;
        }
        strcpy(text + length, range);
        length += more_bytes;
        before = ", ";
    }
}

void sbni_text_add(sbni_text *line, const char *format, ...)
{
    size_t room = line->bytes - line->at;
    va_list args;
    va_start(args, format);
    size_t n = (size_t)vsnprintf(line->text + line->at, room, format, args);
    va_end(args);
    line->at += n < room ? n : room - 1;
}

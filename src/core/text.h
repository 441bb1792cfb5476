/* Numbers as text, with a point whatever the program's locale says. */
#ifndef SBNI_TEXT_H
#define SBNI_TEXT_H

#include <stddef.h>
#include <stdint.h>

/* A finite number as the shortest decimal text that reads back to it. 32 bytes suffice.
 */
void sbni_text_real(double value, char *text, int64_t bytes);

/* As strtod. */
double sbni_text_to_real(const char *text, char **end);

/* Those of n processes that are in[]: "process 3", "processes 0-2, 5"; what does not fit
 * is left out with "…". */
void sbni_text_processes(const uint8_t *in, int n, char *text, int64_t bytes);

/* Text that grows at its end: `bytes` of memory with what it says so far, `at`
 * characters. What does not fit is cut off. */
typedef struct sbni_text {
    char *text;
    size_t at, bytes;
} sbni_text;
__attribute__((format(printf, 2, 3))) void sbni_text_add(sbni_text *line,
                                                         const char *format, ...);

#endif

/* Aligned, zeroed, checked allocation. */
#ifndef SBNI_MEMORY_H
#define SBNI_MEMORY_H

#include <stdint.h>

#include "core/status.h"

/* One cache line and one AVX-512 register. */
enum { SBNI_ALIGN = 64 };

/* Allocate count·size bytes, zeroed and aligned to SBNI_ALIGN, into *(void **)out. Zero
 * bytes give a valid pointer. `what` names the purpose in the error. Free with sbni_free.
 */
sbn_status sbni_alloc(int64_t count, int64_t size, const char *what, void *out);

/* Free what sbni_alloc gave; NULL is fine. */
void sbni_free(void *memory);

/* A copy of a string, freed with sbni_free. */
sbn_status sbni_copy_string(const char *text, char **out);

#endif

#include "support/count_alloc.h"

#include <stdatomic.h>
#include <stddef.h>

static atomic_long calls;

long alloc_count(void)
{
    return atomic_load(&calls);
}

/* WRAP(result, name, parameters, arguments): the linker's names for ours and the real
 * one. */
#define WRAP(type, name, parameters, arguments)                                          \
    type __real_##name parameters;                                                       \
    type __wrap_##name parameters;                                                       \
    type __wrap_##name parameters                                                        \
    {                                                                                    \
        atomic_fetch_add(&calls, 1);                                                     \
        return __real_##name arguments;                                                  \
    }

WRAP(void *, malloc, (size_t a), (a))
WRAP(void *, calloc, (size_t a, size_t b), (a, b))
WRAP(void *, realloc, (void *a, size_t b), (a, b))
WRAP(void *, aligned_alloc, (size_t a, size_t b), (a, b))
WRAP(int, posix_memalign, (void **a, size_t b, size_t c), (a, b, c))
WRAP(char *, strdup, (const char *a), (a))

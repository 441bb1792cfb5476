#include "core/memory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

sbn_status sbni_alloc(int64_t count, int64_t size, const char *what, void *out)
{
    int64_t bytes;
    SBN_CHECK(count >= 0 && size >= 0 && !__builtin_mul_overflow(count, size, &bytes) &&
                  bytes <= INT64_MAX - SBNI_ALIGN,
              SBN_E_MEMORY, "%s: %" PRId64 " elements of %" PRId64 " bytes is no size",
              what, count, size);
    int64_t rounded = (bytes + SBNI_ALIGN - 1) / SBNI_ALIGN * SBNI_ALIGN;
    if (rounded == 0) rounded = SBNI_ALIGN;
    void *memory = aligned_alloc(SBNI_ALIGN, (size_t)rounded);
    SBN_CHECK(memory != NULL, SBN_E_MEMORY, "%s: no memory for %" PRId64 " bytes", what,
              bytes);
    memset(memory, 0, (size_t)rounded);
    memcpy(out, &memory, sizeof memory);
    return SBN_OK;
}

void sbni_free(void *memory)
{
    free(memory);
}

sbn_status sbni_copy_string(const char *text, char **out)
{
    int64_t bytes = (int64_t)strlen(text) + 1;
    SBN_TRY(sbni_alloc(bytes, 1, "string", out));
    memcpy(*out, text, (size_t)bytes);
    return SBN_OK;
}

/* How a function fails: set the thread's error text and return a status. */
#ifndef SBNI_STATUS_H
#define SBNI_STATUS_H

#include "syncbn/status.h"

enum { SBNI_ERROR_BYTES = 512 };

/* Record the text, one line with "?" for control bytes, and return the status given. */
__attribute__((format(printf, 2, 3))) sbn_status sbni_fail(sbn_status status,
                                                           const char *format, ...);

/* Put "prefix: " before the recorded text, e.g. the layer's name. Returns the status. */
__attribute__((format(printf, 2, 3))) sbn_status sbni_fail_in(sbn_status status,
                                                              const char *format, ...);

/* Record that process rank failed with the given status and text; returns SBN_E_PEER. */
sbn_status sbni_fail_peer(int rank, sbn_status status, const char *text);

/* Pass a failure up. */
#define SBN_TRY(call)                                                                    \
    do {                                                                                 \
        sbn_status sbn_try_ = (call);                                                    \
        if (sbn_try_ != SBN_OK) return sbn_try_;                                         \
    } while (0)

/* As SBN_TRY in a function that owns something: sets `status` and goes to its fail label.
 */
#define SBN_GOTO(call)                                                                   \
    do {                                                                                 \
        status = (call);                                                                 \
        if (status != SBN_OK) goto fail;                                                 \
    } while (0)

/* Guard of a public entry: SBN_CHECK(n >= 0, SBN_E_ARG, "expected n >= 0, got %d", n). */
#define SBN_CHECK(cond, code, ...)                                                       \
    do {                                                                                 \
        if (!(cond)) return sbni_fail((code), __VA_ARGS__);                              \
    } while (0)

#endif

#include "core/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char last_error[SBNI_ERROR_BYTES];
static _Thread_local sbn_status peer_status = SBN_OK;

const char *sbn_status_name(sbn_status status)
{
    switch (status) {
    case SBN_OK:
        return "SBN_OK";
    case SBN_E_ARG:
        return "SBN_E_ARG";
    case SBN_E_STATE:
        return "SBN_E_STATE";
    case SBN_E_MEMORY:
        return "SBN_E_MEMORY";
    case SBN_E_MPI:
        return "SBN_E_MPI";
    case SBN_E_PEER:
        return "SBN_E_PEER";
    case SBN_E_FEW:
        return "SBN_E_FEW";
    case SBN_E_NONFINITE:
        return "SBN_E_NONFINITE";
    case SBN_E_RANGE:
        return "SBN_E_RANGE";
    case SBN_E_IO:
        return "SBN_E_IO";
    case SBN_E_DATA:
        return "SBN_E_DATA";
    case SBN_E_MISMATCH:
        return "SBN_E_MISMATCH";
    case SBN_E_STOPPED:
        return "SBN_E_STOPPED";
    }
    return "unknown status";
}

const char *sbn_last_error(void)
{
    return last_error;
}

sbn_status sbn_peer_status(void)
{
    return peer_status;
}

/* Errors quote names and lines of files; a quoted byte must neither begin another line
 * nor steer the terminal. */
static void make_printable(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f) *text = '?';
}

sbn_status sbni_fail(sbn_status status, const char *format, ...)
{
    /* Formatted aside first: an argument may be the old text itself. */
    char text[SBNI_ERROR_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    make_printable(text);
    memcpy(last_error, text, sizeof text);
    return status;
}

sbn_status sbni_fail_in(sbn_status status, const char *format, ...)
{
    char prefix[SBNI_ERROR_BYTES / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(prefix, sizeof prefix, format, args);
    va_end(args);
    make_printable(prefix);
    char old[SBNI_ERROR_BYTES];
    memcpy(old, last_error, sizeof old);
    snprintf(last_error, sizeof last_error, "%s: %.*s", prefix,
             (int)(sizeof last_error - sizeof prefix - 3), old);
    return status;
}

sbn_status sbni_fail_peer(int rank, sbn_status status, const char *text)
{
    peer_status = status;
    return sbni_fail(SBN_E_PEER, "process %d: %s", rank, text);
}

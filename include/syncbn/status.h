/** Status codes and the text of the last error. Every fallible function returns a
 * sbn_status. */
#ifndef SYNCBN_STATUS_H
#define SYNCBN_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SBN_API __attribute__((visibility("default")))
#else
#define SBN_API
#endif

/** What happened. 0 is success; the names are stable, the numbers are not part of any
 * file format. */
typedef enum sbn_status {
    SBN_OK = 0,
    SBN_E_ARG,       /**< an argument, option or setting is not usable */
    SBN_E_STATE,     /**< a call out of order, e.g. backward without forward */
    SBN_E_MEMORY,    /**< an allocation failed; the text says how many bytes */
    SBN_E_MPI,       /**< an MPI call failed */
    SBN_E_PEER,      /**< another process of the group failed; see sbn_peer_status() */
    SBN_E_FEW,       /**< a norm batch has one value per channel: no variance exists */
    SBN_E_NONFINITE, /**< NaN or infinity in values, statistics, loss or gradients */
    SBN_E_RANGE,     /**< a value is too large for the exact sums */
    SBN_E_IO,        /**< the system refused to read or write */
    SBN_E_DATA,      /**< a data set, net or checkpoint file is malformed */
    SBN_E_MISMATCH, /**< the processes disagree about settings, data or the order of calls
                     */
    SBN_E_STOPPED   /**< stopped on request after saving; can be resumed */
} sbn_status;

/** Name of a status, e.g. "SBN_E_ARG". Never NULL; owned by the library. */
SBN_API const char *sbn_status_name(sbn_status status);

/**
 * One line about the most recent failure in the calling thread: what, where, expected,
 * got. Valid until the next failing call in this thread; "" when nothing failed yet.
 * Owned by the library.
 */
SBN_API const char *sbn_last_error(void);

/**
 * The status behind the most recent SBN_E_PEER in this thread, as the failing process
 * reported it; SBN_OK when there was none. sbn_last_error() then names the process and
 * repeats its text.
 */
SBN_API sbn_status sbn_peer_status(void);

#ifdef __cplusplus
}
#endif
#endif

/* The report of --comm-report: what the messages of a run cost, and should have cost. */
#ifndef SBNI_COMM_H
#define SBNI_COMM_H

#include "core/status.h"
#include "syncbn/group.h"

/*
 * Measure the network, print the table on process 0's standard output and write it to
 * folder/comm.json:
 * {"processes", "latency_s", "s_per_byte",
 *  "rows": [{"layer", "phase", "messages", "bytes",
 *            "begin_s": [of each process], "wait_s": [of each process],
 *            "wait_mean_s", "wait_most_s", "slowest_rank",
 *            "measured_s", "predicted_s" (both of a message), "ratio"}]}
 * One process sends nothing: no rows, and null for the network.
 * @collective over the group @errors SBN_E_IO, SBN_E_MEMORY; SBN_E_PEER
 */
sbn_status sbni_comm_report(sbn_group *group, const char *folder);

#endif

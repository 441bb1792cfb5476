/* Messages without a layer around them, against which benchmarks hold what a layer takes.
 */
#ifndef SBNI_BARE_H
#define SBNI_BARE_H

#include "comm/group.h"

/* Wait until all processes are here. @collective */
sbn_status sbni_bare_barrier(sbn_group *group);

/* One blocking MPI_Allreduce of integers, as the layers' messages are: sum = Σ send.
 * @collective (8·words bytes) */
sbn_status sbni_bare_sum(sbn_group *group, const int64_t *send, int64_t words,
                         int64_t *sum);

/* The largest of each value over the processes; apart from mine. @collective (8·n bytes)
 */
sbn_status sbni_bare_slowest(sbn_group *group, const double *mine, int n,
                             double *slowest);

#endif

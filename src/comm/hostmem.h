/* Memory that the processes of one host share: one copy of the data set a host, not a
 * process. */
#ifndef SBNI_HOSTMEM_H
#define SBNI_HOSTMEM_H

#include <stdbool.h>
#include <stdint.h>

#include "comm/group.h"

typedef struct sbni_hostmem {
    sbn_group *group;
    MPI_Comm comm; /* of the host's processes */
    MPI_Win window;
    void *data;     /* bytes, the same memory on all of them */
    int rank, size; /* of this process among them, and their number */
} sbni_hostmem;

/* No memory: what destroy leaves alone. */
sbni_hostmem sbni_hostmem_none(void);

/* @collective over the group. bytes must agree on all. */
sbn_status sbni_hostmem_create(sbn_group *group, int64_t bytes, sbni_hostmem *memory);

/* After one of them has written, before the others read. @collective over the host's
 * processes. */
sbn_status sbni_hostmem_publish(sbni_hostmem *memory);

void sbni_hostmem_destroy(sbni_hostmem *memory);

#endif

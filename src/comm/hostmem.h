/* Memory that the processes of one host share: the copy of a data set, words to be
 * summed, and where each of them is. */
#ifndef SBNI_HOSTMEM_H
#define SBNI_HOSTMEM_H

#include <stdbool.h>
#include <stdint.h>

#include "comm/group.h"

/*
 * So many bytes, zeroed, at the same place of the same pages in all processes of `host`,
 * which run on one machine; NULL on all of them where one can't have it (containers that
 * do not see each other's processes). It has no name: whatever ends them, nothing is
 * left.
 * @collective over host (32 bytes from its first process, then 4 of each)
 */
void *sbni_hostmem_map(MPI_Comm host, int64_t bytes);

/* Only this process's view of it ends. Local. */
void sbni_hostmem_unmap(void *memory, int64_t bytes);

/* One copy a host of what one of its processes writes and all read. */
typedef struct sbni_hostmem {
    sbn_group *group;
    MPI_Comm comm; /* of the host's processes; of this one alone where they can't share */
    bool apart;    /* they can't */
    int64_t bytes;
    void *data;     /* the same memory on all of them */
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

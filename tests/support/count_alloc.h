/* Counts allocations of our own objects: the linker hands their calls of malloc and the
 * like to count_alloc.c (--wrap). Those within MPI, BLAS and other libraries stay as they
 * are. Linked into one test only. */
#ifndef SUPPORT_COUNT_ALLOC_H
#define SUPPORT_COUNT_ALLOC_H

/* Calls of all threads since the start. */
long alloc_count(void);

#endif

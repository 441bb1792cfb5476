#define _GNU_SOURCE /* memfd_create */
#include "comm/hostmem.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/memory.h"

/* Whether a file may be so long; one that may not ends the process. */
static bool may_be(int64_t bytes)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) == 0 && (rlim_t)bytes <= limit.rlim_cur;
}

/* The memory of a host's first process, seen by all of them; -1 where it can't be. */
static int open_memory(MPI_Comm host, int64_t bytes)
{
    int rank, fd = -1;
    int64_t where[4] = {0, -1}; /* process, file of it; its device and inode */
    struct stat s;
    MPI_Comm_rank(host, &rank);
    if (rank == 0) {
        if (may_be(bytes)) fd = memfd_create("syncbn", MFD_CLOEXEC);
        if (fd >= 0 && ftruncate(fd, bytes) == 0 && fstat(fd, &s) == 0) {
            where[0] = getpid();
            where[1] = fd;
            where[2] = (int64_t)s.st_dev;
            where[3] = (int64_t)s.st_ino;
        } else if (fd >= 0) {
            close(fd);
            fd = -1;
        }
    }
    if (MPI_Bcast(where, 4, MPI_INT64_T, 0, host) != MPI_SUCCESS) where[1] = -1;
    if (rank != 0 && where[1] >= 0) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%lld/fd/%lld", (long long)where[0],
                 (long long)where[1]);
        /* in a container of its own that process is another one, and its file anything */
        bool same = stat(path, &s) == 0 && (int64_t)s.st_dev == where[2] &&
                    (int64_t)s.st_ino == where[3];
        if (same) fd = open(path, O_RDWR | O_CLOEXEC);
    }
    return fd;
}

void *sbni_hostmem_map(MPI_Comm host, int64_t bytes)
{
    int fd = open_memory(host, bytes), mine, all = 0;
    void *memory = MAP_FAILED;
    if (fd >= 0)
        memory = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    mine = memory != MAP_FAILED;
    /* also: nobody closes the file before all have opened it */
    if (MPI_Allreduce(&mine, &all, 1, MPI_INT, MPI_MIN, host) != MPI_SUCCESS) all = 0;
    if (fd >= 0) close(fd);
    if (mine && !all) munmap(memory, (size_t)bytes);
    return all ? memory : NULL;
}

void sbni_hostmem_unmap(void *memory, int64_t bytes)
{
    if (memory) munmap(memory, (size_t)bytes);
}

sbni_hostmem sbni_hostmem_none(void)
{
    return (sbni_hostmem){.comm = MPI_COMM_NULL};
}

/* A copy for each process, of its own memory. */
static sbn_status keep_apart(sbni_hostmem *memory)
{
    MPI_Comm_free(&memory->comm);
    SBN_TRY(sbni_mpi(MPI_Comm_dup(MPI_COMM_SELF, &memory->comm), "MPI_Comm_dup"));
    memory->apart = true;
    return sbni_alloc(1, memory->bytes, "data of a host", &memory->data);
}

static sbn_status create(sbn_group *group, sbni_hostmem *memory)
{
    SBN_TRY(sbni_mpi(MPI_Comm_split_type(group->comm, MPI_COMM_TYPE_SHARED, group->rank,
                                         MPI_INFO_NULL, &memory->comm),
                     "MPI_Comm_split_type"));
    memory->data = sbni_hostmem_map(memory->comm, memory->bytes);
    if (!memory->data) SBN_TRY(keep_apart(memory));
    MPI_Comm_rank(memory->comm, &memory->rank);
    MPI_Comm_size(memory->comm, &memory->size);
    return SBN_OK;
}

sbn_status sbni_hostmem_create(sbn_group *group, int64_t bytes, sbni_hostmem *memory)
{
    *memory = sbni_hostmem_none();
    memory->group = group;
    memory->bytes = bytes;
    SBN_TRY(sbni_call_enter(group, "sharing memory", bytes));
    sbn_status status = create(group, memory);
    sbni_call_goes_on(group);
    return status;
}

sbn_status sbni_hostmem_publish(sbni_hostmem *memory)
{
    SBN_TRY(sbni_call_enter(memory->group, "publishing memory", 0));
    atomic_thread_fence(memory_order_seq_cst);
    int code = MPI_Barrier(memory->comm);
    atomic_thread_fence(memory_order_seq_cst);
    sbni_call_goes_on(memory->group);
    return sbni_mpi(code, "MPI_Barrier");
}

void sbni_hostmem_destroy(sbni_hostmem *memory)
{
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (memory->comm == MPI_COMM_NULL || !memory->comm) return;
    if (memory->apart)
        sbni_free(memory->data);
    else
        sbni_hostmem_unmap(memory->data, memory->bytes);
    if (!finalized) MPI_Comm_free(&memory->comm);
    *memory = sbni_hostmem_none();
}

#include "comm/board.h"

#include <string.h>
#include <unistd.h>

#include "comm/hostmem.h"
#include "core/memory.h"

/* Seats begin here, apart from what all processes write. */
enum { HEAD_BYTES = 64 };

/* What each process says of itself. */
typedef struct card {
    int32_t leader;
    char host[SBNI_HOST_BYTES - 4];
} card;

static int64_t bytes_of(int seats, int processes)
{
    return HEAD_BYTES + seats * (int64_t)sizeof(sbni_seat) + 8 * (int64_t)processes;
}

/* Who sits on which host. */
static sbn_status gather_cards(sbn_group *group, int leader, sbni_board *b)
{
    card mine = {.leader = leader}, *all = NULL;
    gethostname(mine.host, sizeof mine.host - 1);
    sbn_status status = sbni_alloc(b->size, sizeof *all, "watch", &all);
    if (status == SBN_OK)
        status = sbni_alloc(b->size, sizeof *b->leader, "watch", &b->leader);
    if (status == SBN_OK)
        status = sbni_alloc(b->size, sizeof *b->ranks, "watch", &b->ranks);
    if (status == SBN_OK)
        status = sbni_alloc(b->size, sizeof *b->hosts, "watch", &b->hosts);
    status = sbn_group_agree(group, status);
    if (status == SBN_OK)
        status = sbni_mpi(MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all, sizeof mine,
                                        MPI_BYTE, group->comm),
                          "MPI_Allgather");
    b->here = 0;
    for (int r = 0; status == SBN_OK && r < b->size; r++) {
        b->leader[r] = all[r].leader;
        memcpy(b->hosts[r], all[r].host, sizeof all[r].host);
        if (all[r].leader == leader) b->ranks[b->here++] = r;
    }
    sbni_free(all);
    return status;
}

sbn_status sbni_board_create(sbn_group *group, sbni_board *b)
{
    *b = (sbni_board){.size = group->size};
    MPI_Comm host;
    int here, leader = group->rank;
    SBN_TRY(sbni_mpi(MPI_Comm_split_type(group->comm, MPI_COMM_TYPE_SHARED, group->rank,
                                         MPI_INFO_NULL, &host),
                     "MPI_Comm_split_type"));
    MPI_Comm_size(host, &here);
    b->memory = sbni_hostmem_map(host, bytes_of(here, b->size));
    if (b->memory) {
        b->bytes = bytes_of(here, b->size);
        MPI_Bcast(&leader, 1, MPI_INT, 0, host);
    }
    MPI_Comm_free(&host);
    sbn_status status = SBN_OK;
    if (!b->memory) status = sbni_alloc(1, bytes_of(1, b->size), "watch", &b->memory);
    SBN_GOTO(sbn_group_agree(group, status));
    SBN_GOTO(gather_cards(group, leader, b));
    b->speaker = b->memory;
    b->lost = b->speaker + 1;
    b->seats = (sbni_seat *)((char *)b->memory + HEAD_BYTES);
    b->heard = (_Atomic uint64_t *)(b->seats + b->here);
    for (int i = 0; i < b->here; i++)
        if (b->ranks[i] == group->rank) b->mine = &b->seats[i];
    return SBN_OK;
fail:
    sbni_board_destroy(b);
    return status;
}

void sbni_board_destroy(sbni_board *b)
{
    if (b->bytes)
        sbni_hostmem_unmap(b->memory, b->bytes);
    else
        sbni_free(b->memory);
    sbni_free(b->leader);
    sbni_free(b->ranks);
    sbni_free(b->hosts);
    *b = (sbni_board){0};
}

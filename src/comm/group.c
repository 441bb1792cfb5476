#include "comm/group.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <time.h>

#include "comm/alike.h"
#include "comm/lane.h"
#include "comm/lockstep.h"
#include "comm/watch.h"
#include "core/clock.h"
#include "core/memory.h"

sbn_status sbni_mpi(int code, const char *call)
{
    if (code == MPI_SUCCESS) return SBN_OK;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    return sbni_fail(SBN_E_MPI, "%s: %s", call, text);
}

const char *sbni_mpi_version(void)
{
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;
    MPI_Get_library_version(text, &length);
    text[strcspn(text, ",\n")] = 0;
    return text;
}

/* A call is over that had to wait since began_s. A group of one sends nothing. */
static void count_other(sbn_group *group, int64_t bytes, double began_s)
{
    sbni_call_goes_on(group);
    if (group->size == 1) return;
    sbni_traffic_count(&group->other, bytes);
    group->other.sums.wait_s += sbni_clock_s() - began_s;
}

bool sbni_group_is_funneled(void)
{
    int level = MPI_THREAD_SINGLE, main_thread = 0;
    MPI_Query_thread(&level);
    MPI_Is_thread_main(&main_thread);
    return level >= MPI_THREAD_SERIALIZED ||
           (level >= MPI_THREAD_FUNNELED && main_thread);
}

static sbn_status agree(sbn_group *group, sbn_status mine, bool *wants);

/* What can be told without a message, for every way to make a group. */
static sbn_status check_comm(MPI_Comm comm, sbn_group **group, const char *call)
{
    SBN_CHECK(group != NULL, SBN_E_ARG, "%s: expected a place for the group", call);
    *group = NULL;
    int initialized = 0, finalized = 0;
    MPI_Initialized(&initialized);
    if (initialized) MPI_Finalized(&finalized);
    SBN_CHECK(initialized && !finalized, SBN_E_STATE,
              "%s: MPI is not running; call MPI_Init first", call);
    SBN_CHECK(comm != MPI_COMM_NULL, SBN_E_ARG,
              "%s: expected a communicator, got MPI_COMM_NULL", call);
    int between = 0;
    MPI_Comm_test_inter(comm, &between);
    SBN_CHECK(!between, SBN_E_ARG,
              "%s: expected an intracommunicator, got an intercommunicator", call);
    return SBN_OK;
}

/* Fill a group from a communicator that becomes its own. */
static void own(sbn_group *group, MPI_Comm comm)
{
    group->comm = comm;
    group->check = MPI_COMM_NULL;
    MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
    MPI_Comm_rank(comm, &group->rank);
    MPI_Comm_size(comm, &group->size);
    group->other.sums = (sbn_traffic){.name = "other", .phase = ""};
}

static sbn_status choose_sums(sbn_group *group)
{
    if (group->size == 1) return SBN_OK;
    return sbni_hostsum_is_wanted(group, &group->by_memory, &group->crowded);
}

sbn_status sbn_group_create(MPI_Comm comm, sbn_group **group)
{
    /* A process that fails on its own still takes part, so that nobody waits. */
    sbn_group *nowhere, **place = group ? group : &nowhere, *g = NULL, all = {0};
    SBN_TRY(check_comm(comm, place, "sbn_group_create"));
    MPI_Comm duplicate;
    SBN_TRY(sbni_mpi(MPI_Comm_dup(comm, &duplicate), "MPI_Comm_dup"));
    own(&all, duplicate);
    sbn_status status =
        group ? sbni_alloc(1, sizeof *g, "group", &g)
              : sbni_fail(SBN_E_ARG, "sbn_group_create: expected a place for the group");
    bool checks = sbni_lockstep_is_wanted();
    status = agree(&all, status, &checks);
    if (status == SBN_OK && checks && all.size > 1) status = sbni_lockstep_begin(&all);
    if (status == SBN_OK) status = choose_sums(&all);
    if (status != SBN_OK) {
        MPI_Comm_free(&all.comm);
        sbni_free(g);
        return status;
    }
    *g = all;
    *place = g;
    return SBN_OK;
}

/* Split the processes of `whole`; mine is what this process found wrong before. */
static sbn_status split(sbn_group *whole, sbn_status mine, int color, int key,
                        sbn_group **group)
{
    sbn_group *g = NULL;
    MPI_Comm part;
    if (mine == SBN_OK && color < 0 && color != MPI_UNDEFINED)
        mine = sbni_fail(SBN_E_ARG,
                         "sbn_group_split: expected a color >= 0 or MPI_UNDEFINED, got "
                         "%d",
                         color);
    if (mine == SBN_OK) mine = sbni_alloc(1, sizeof *g, "group", &g);
    sbn_status status = sbn_group_agree(whole, mine);
    if (status == SBN_OK)
        status =
            sbni_mpi(MPI_Comm_split(whole->comm, color, key, &part), "MPI_Comm_split");
    if (status != SBN_OK || part == MPI_COMM_NULL) {
        sbni_free(g);
        return status;
    }
    own(g, part);
    if (whole->checks) status = sbni_lockstep_begin(g);
    if (status == SBN_OK) status = choose_sums(g);
    if (status != SBN_OK) sbn_group_destroy(&g);
    *group = g;
    return status;
}

sbn_status sbn_group_split(MPI_Comm comm, int color, int key, sbn_group **group)
{
    /* A process without a place for its group still takes part, so that nobody waits. */
    sbn_group *whole, *nowhere, **place = group ? group : &nowhere;
    SBN_TRY(check_comm(comm, place, "sbn_group_split"));
    SBN_TRY(sbn_group_create(comm, &whole));
    sbn_status mine = SBN_OK;
    if (!group)
        mine = sbni_fail(SBN_E_ARG, "sbn_group_split: expected a place for the group");
    sbn_status status = split(whole, mine, color, key, place);
    sbn_group_destroy(&whole);
    return status;
}

sbn_status sbn_group_split_size(MPI_Comm comm, int group_size, sbn_group **group)
{
    sbn_group *whole, *nowhere, **place = group ? group : &nowhere;
    SBN_TRY(check_comm(comm, place, "sbn_group_split_size"));
    SBN_TRY(sbn_group_create(comm, &whole));
    sbn_status status = sbni_group_check_same(whole, group_size,
                                              "sbn_group_split_size: the group size"),
               mine = SBN_OK;
    if (status == SBN_OK && (group_size < 1 || whole->size % group_size))
        status = sbni_fail(SBN_E_ARG,
                           "sbn_group_split_size: expected a size that divides the %d "
                           "processes, got %d",
                           whole->size, group_size);
    if (!group)
        mine =
            sbni_fail(SBN_E_ARG, "sbn_group_split_size: expected a place for the group");
    if (status == SBN_OK)
        status = split(whole, mine, whole->rank / group_size, whole->rank, place);
    sbn_group_destroy(&whole);
    return status;
}

void sbn_group_destroy(sbn_group **group)
{
    if (!group || !*group) return;
    int finalized = 0;
    MPI_Finalized(&finalized);
    /* the others may be in another call, and hear of it */
    if (!finalized && (*group)->checks) {
        sbni_call_enter(*group, "sbn_group_destroy", 0);
        sbni_call_goes_on(*group);
    }
    sbni_lane_free_all(*group);
    if (!finalized) MPI_Comm_free(&(*group)->comm);
    if ((*group)->check != MPI_COMM_NULL && !finalized) MPI_Comm_free(&(*group)->check);
    if ((*group)->watch) (*group)->watch->group = NULL;
    sbni_traffic_free((*group)->rows);
    sbni_free(*group);
    *group = NULL;
}

int sbn_group_rank(const sbn_group *group)
{
    return group->rank;
}

int sbn_group_size(const sbn_group *group)
{
    return group->size;
}

/* wants: whether this process wants check mode; then whether one does. */
static sbn_status agree(sbn_group *group, sbn_status mine, bool *wants)
{
    if (group->size == 1) return mine;
    int fine = *wants ? INT_MAX - 1 : INT_MAX, first = INT_MAX,
        failing = mine == SBN_OK ? fine : group->rank;
    double began_s = sbni_clock_s();
    sbn_status entered = sbni_call_enter(group, "agreement", 1);
    if (entered != SBN_OK) return mine != SBN_OK ? mine : entered;
    int code = MPI_Allreduce(&failing, &first, 1, MPI_INT, MPI_MIN, group->comm);
    count_other(group, sizeof failing, began_s);
    SBN_TRY(sbni_mpi(code, "MPI_Allreduce"));
    *wants = first == INT_MAX - 1;
    if (first >= INT_MAX - 1) return SBN_OK;
    struct {
        int32_t status, peer;
        char text[SBNI_ERROR_BYTES];
    } report = {.status = (int32_t)mine};
    if (group->rank == first) {
        /* A process that only passes on what a peer said must not hide the cause. */
        if (mine == SBN_E_PEER) report.status = (int32_t)sbn_peer_status();
        strncpy(report.text, sbn_last_error(), sizeof report.text - 1);
    }
    SBN_TRY(sbni_group_broadcast(group, &report, sizeof report, first));
    if (mine != SBN_OK) return mine;
    return sbni_fail_peer(first, (sbn_status)report.status, report.text);
}

sbn_status sbn_group_agree(sbn_group *group, sbn_status mine)
{
    bool wants = false;
    return agree(group, mine, &wants);
}

sbn_status sbni_group_agree_asleep(sbn_group *group, sbn_status mine)
{
    const struct timespec nap = {.tv_nsec = 200000};
    MPI_Request request;
    int done = 0;
    if (group->size == 1) return mine;
    SBN_TRY(sbni_call_enter_long(group, "agreement"));
    int code = MPI_Ibarrier(group->comm, &request);
    while (code == MPI_SUCCESS) {
        code = MPI_Test(&request, &done, MPI_STATUS_IGNORE);
        if (done) break;
        nanosleep(&nap, NULL);
    }
    sbni_call_goes_on(group);
    SBN_TRY(sbni_mpi(code, "MPI_Ibarrier"));
    return sbn_group_agree(group, mine);
}

sbn_status sbni_group_alone(sbn_group **group)
{
    return sbn_group_create(MPI_COMM_SELF, group);
}

sbn_status sbni_group_hosts(sbn_group *group, int *hosts, int *processes)
{
    MPI_Comm host;
    int rank, leader;
    SBN_TRY(sbni_call_enter(group, "counting hosts", 0));
    int code = MPI_Comm_split_type(group->comm, MPI_COMM_TYPE_SHARED, group->rank,
                                   MPI_INFO_NULL, &host);
    sbni_call_goes_on(group);
    SBN_TRY(sbni_mpi(code, "MPI_Comm_split_type"));
    MPI_Comm_rank(host, &rank);
    MPI_Comm_size(host, processes);
    MPI_Comm_free(&host);
    leader = rank == 0;
    double began_s = sbni_clock_s();
    SBN_TRY(sbni_call_enter(group, "counting hosts", 1));
    code = MPI_Allreduce(&leader, hosts, 1, MPI_INT, MPI_SUM, group->comm);
    count_other(group, sizeof leader, began_s);
    return sbni_mpi(code, "MPI_Allreduce");
}

sbn_status sbni_group_broadcast(sbn_group *group, void *data, int64_t bytes, int root)
{
    /* MPI counts are int; large blocks go in pieces. */
    for (char *p = data; bytes > 0;) {
        int piece = bytes > (1 << 30) ? 1 << 30 : (int)bytes;
        double began_s = sbni_clock_s();
        SBN_TRY(sbni_call_enter(group, "broadcast", piece));
        int code = MPI_Bcast(p, piece, MPI_BYTE, root, group->comm);
        count_other(group, piece, began_s);
        SBN_TRY(sbni_mpi(code, "MPI_Bcast"));
        p += piece;
        bytes -= piece;
    }
    return SBN_OK;
}

sbn_status sbni_group_gather(sbn_group *group, int64_t value, int64_t *values)
{
    double began_s = sbni_clock_s();
    SBN_TRY(sbni_call_enter(group, "comparison", 1));
    int code = MPI_Allgather(&value, 1, MPI_INT64_T, values, 1, MPI_INT64_T, group->comm);
    count_other(group, 8 * (int64_t)group->size, began_s);
    return sbni_mpi(code, "MPI_Allgather");
}

sbn_status sbni_group_ranges(sbn_group *group, const int64_t *values, int n,
                             int64_t *least, int64_t *greatest)
{
    int64_t in[2 * SBNI_GROUP_RANGES] = {0}, out[2 * SBNI_GROUP_RANGES];
    for (int i = 0; i < n; i++) {
        in[2 * i] = values[i];
        in[2 * i + 1] = ~values[i]; /* ~ turns the minimum into a maximum */
    }
    double began_s = sbni_clock_s();
    SBN_TRY(sbni_call_enter(group, "comparison", 2 * n));
    int code = MPI_Allreduce(in, out, 2 * n, MPI_INT64_T, MPI_MIN, group->comm);
    count_other(group, 16 * (int64_t)n, began_s);
    SBN_TRY(sbni_mpi(code, "MPI_Allreduce"));
    for (int i = 0; i < n; i++) {
        least[i] = out[2 * i];
        greatest[i] = ~out[2 * i + 1];
    }
    return SBN_OK;
}

sbn_status sbni_group_range(sbn_group *group, int64_t value, int64_t *least,
                            int64_t *greatest)
{
    return sbni_group_ranges(group, &value, 1, least, greatest);
}

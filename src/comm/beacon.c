#define _GNU_SOURCE /* getrandom, getifaddrs */
#include "comm/beacon.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

/* Sent so often, and so many times within the limit. */
static const double SLOWEST_S = 1, TIMES = 4;

/* After so many datagrams without an answer all addresses are tried again. */
enum { PATIENCE = 4 };

/* How process 0 is reached; port 0: it is not. */
typedef struct invitation {
    uint64_t token;
    int32_t addresses, port; /* in the network's order, as all of an address */
    uint32_t address[SBNI_BEACON_ADDRESSES];
} invitation;

typedef struct datagram {
    uint64_t token;
    int32_t rank, reserved;
} datagram;

static int open_socket(struct sockaddr_in *own)
{
    socklen_t bytes = sizeof *own;
    *own =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && !bind(fd, (struct sockaddr *)own, bytes) &&
        !getsockname(fd, (struct sockaddr *)own, &bytes))
        return fd;
    if (fd >= 0) close(fd);
    return -1;
}

/* Those of this host, loopback's where there is no other. */
static void list_addresses(invitation *all)
{
    struct ifaddrs *list;
    if (getifaddrs(&list)) return;
    for (int loopback = 0; loopback < 2 && all->addresses == 0; loopback++)
        for (struct ifaddrs *i = list; i; i = i->ifa_next) {
            bool local = i->ifa_flags & IFF_LOOPBACK;
            if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || local != loopback ||
                all->addresses == SBNI_BEACON_ADDRESSES)
                continue;
            struct sockaddr_in address;
            memcpy(&address, i->ifa_addr, sizeof address);
            all->address[all->addresses++] = address.sin_addr.s_addr;
        }
    freeifaddrs(list);
}

static bool has_other_hosts(const sbni_board *board)
{
    for (int r = 0; r < board->size; r++)
        if (board->leader[r] != 0) return true;
    return false;
}

static void send_to(const sbni_beacon *b, const struct sockaddr_in *to)
{
    datagram d = {.token = b->token, .rank = b->rank};
    /* one that is lost is made up for by the next */
    if (sendto(b->fd, &d, sizeof d, MSG_NOSIGNAL, (const struct sockaddr *)to,
               sizeof *to) < 0)
        return;
}

static void send_sign(sbni_beacon *b)
{
    if (b->fd < 0 || b->rank == 0) return;
    if (b->unanswered < PATIENCE)
        send_to(b, &b->answered);
    else
        for (int i = 0; i < b->addresses; i++) send_to(b, &b->address[i]);
    b->unanswered++;
    b->since_s = 0;
}

sbn_status sbni_beacon_create(sbn_group *group, const sbni_board *board,
                              sbni_beacon *beacon)
{
    *beacon = (sbni_beacon){.fd = -1, .rank = group->rank, .unanswered = PATIENCE};
    if (!has_other_hosts(board)) return SBN_OK;
    beacon->board = board;
    invitation all = {0};
    struct sockaddr_in own = {0};
    if (board->leader[group->rank] == group->rank) beacon->fd = open_socket(&own);
    if (group->rank == 0 && beacon->fd >= 0 &&
        getrandom(&all.token, sizeof all.token, 0) == sizeof all.token) {
        all.port = own.sin_port;
        list_addresses(&all);
    }
    SBN_TRY(sbni_mpi(MPI_Bcast(&all, sizeof all, MPI_BYTE, 0, group->comm), "MPI_Bcast"));
    beacon->token = all.token;
    beacon->addresses = all.port ? all.addresses : 0;
    for (int i = 0; i < beacon->addresses; i++)
        beacon->address[i] = (struct sockaddr_in){.sin_family = AF_INET,
                                                  .sin_port = (in_port_t)all.port,
                                                  .sin_addr.s_addr = all.address[i]};
    send_sign(beacon);
    return SBN_OK;
}

void sbni_beacon_destroy(sbni_beacon *beacon)
{
    if (beacon->board && beacon->fd >= 0) close(beacon->fd);
    beacon->fd = -1;
}

/* Process 0 answers where it came from; the others note where the answer came from. */
static void hear(sbni_beacon *b, int rank, const struct sockaddr_in *from)
{
    if (b->rank == 0) {
        send_to(b, from);
    } else {
        b->answered = *from;
        b->unanswered = 0;
    }
    atomic_fetch_add_explicit(&b->board->heard[rank], 1, memory_order_relaxed);
}

void sbni_beacon_tend(sbni_beacon *b, double passed_s, double limit_s)
{
    if (!b->board || b->fd < 0) return;
    datagram d;
    struct sockaddr_in from;
    socklen_t bytes = sizeof from;
    ssize_t n;
    while ((n = recvfrom(b->fd, &d, sizeof d, 0, (struct sockaddr *)&from, &bytes)) >=
           0) {
        bool expected = b->rank != 0 ? d.rank == 0
                                     : d.rank > 0 && d.rank < b->board->size &&
                                           b->board->leader[d.rank] == d.rank;
        if (n == sizeof d && d.token == b->token && expected) hear(b, d.rank, &from);
        bytes = sizeof from;
    }
    double every_s =
        limit_s > 0 && limit_s / TIMES < SLOWEST_S ? limit_s / TIMES : SLOWEST_S;
    b->since_s += passed_s;
    if (b->since_s >= every_s) send_sign(b);
}

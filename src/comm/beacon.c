#define _GNU_SOURCE /* getrandom, getifaddrs */
#include "comm/beacon.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"

/* Between two signs; a limit has room for so many. */
static const double EVERY_S = 0.5, IN_LIMIT = 4;

/* After so many datagrams without an answer all addresses are tried; after so many more,
 * where something keeps them from coming through, only this often. */
enum { PATIENCE = 4, TRIES = 40 };
static const double SELDOM_S = 30;

/* Datagrams that are looked at in one go beside those that may be due: who sends others
 * can neither keep the thread here nor, unless it sends far more, hold those up. */
enum { STRANGERS = 1000 };

/* How process 0 is reached; port 0: it is not. */
typedef struct invitation {
    uint64_t token;
    int32_t addresses, port; /* in the network's order, as all of an address */
    uint32_t address[SBNI_BEACON_ADDRESSES];
} invitation;

typedef struct datagram {
    uint64_t token;
    int32_t rank, lost; /* of an answer: the first process of a lost host, or -1 */
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
            bool local = i->ifa_flags & IFF_LOOPBACK, up = i->ifa_flags & IFF_UP;
            if (!up || !i->ifa_addr || i->ifa_addr->sa_family != AF_INET ||
                local != loopback || all->addresses == SBNI_BEACON_ADDRESSES)
                continue;
            struct sockaddr_in address;
            memcpy(&address, i->ifa_addr, sizeof address);
            all->address[all->addresses++] = address.sin_addr.s_addr;
        }
    freeifaddrs(list);
}

/* One that does not arrive is made up for by the next. */
static void send_to(const sbni_beacon *b, const struct sockaddr_in *to, int lost)
{
    datagram d = {b->token, b->rank, lost};
    (void)sendto(b->fd, &d, sizeof d, 0, (const struct sockaddr *)to, sizeof *to);
}

static void send_sign(sbni_beacon *b, double every_s)
{
    double now_s = sbni_clock_s();
    if (b->rank == 0 || now_s < b->next_s) return;
    if (b->unanswered < PATIENCE)
        send_to(b, &b->answered, -1);
    else
        for (int i = 0; i < b->addresses; i++) send_to(b, &b->address[i], -1);
    b->unanswered++;
    b->next_s = now_s + (b->unanswered < TRIES ? every_s : SELDOM_S);
}

sbn_status sbni_beacon_create(sbn_group *group, const sbni_board *board,
                              sbni_beacon *beacon)
{
    *beacon = (sbni_beacon){.rank = group->rank, .fd = -1, .unanswered = PATIENCE};
    if (board->here == board->size) return SBN_OK;
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
    if (beacon->fd >= 0) send_sign(beacon, 0);
    return SBN_OK;
}

void sbni_beacon_destroy(sbni_beacon *beacon)
{
    if (beacon->board && beacon->fd >= 0) close(beacon->fd);
    beacon->fd = -1;
}

static int first_of(const uint8_t *lost, int n)
{
    for (int r = 0; r < n; r++)
        if (lost[r]) return r;
    return -1;
}

static void hear(sbni_beacon *b, const datagram *d, const struct sockaddr_in *from,
                 const uint8_t *lost)
{
    const sbni_board *board = b->board;
    if (b->rank == 0) {
        send_to(b, from, first_of(lost, board->size));
    } else {
        b->answered = *from;
        b->unanswered = 0;
        /* this host itself may have been, until now */
        bool known = d->lost >= 0 && d->lost < board->size && d->lost != b->rank;
        atomic_store(board->lost, known ? (uint32_t)d->lost + 1 : 0);
    }
    atomic_fetch_add_explicit(&board->heard[d->rank], 1, memory_order_relaxed);
}

static bool is_expected(const sbni_beacon *b, const datagram *d)
{
    if (d->token != b->token) return false;
    if (b->rank != 0) return d->rank == 0;
    return d->rank > 0 && d->rank < b->board->size &&
           b->board->leader[d->rank] == d->rank;
}

void sbni_beacon_tend(sbni_beacon *b, double limit_s, const uint8_t *lost)
{
    if (!b->board || b->fd < 0) return;
    datagram d;
    struct sockaddr_in from;
    socklen_t bytes = sizeof from;
    ssize_t n = 0;
    for (int i = 0; i < 2 * b->board->size + STRANGERS && n >= 0; i++) {
        n = recvfrom(b->fd, &d, sizeof d, 0, (struct sockaddr *)&from, &bytes);
        if (n == sizeof d && is_expected(b, &d)) hear(b, &d, &from, lost);
        bytes = sizeof from;
    }
    double every_s = limit_s > 0 ? limit_s / IN_LIMIT : EVERY_S;
    send_sign(b, every_s < EVERY_S ? every_s : EVERY_S);
}

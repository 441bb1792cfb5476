/* Signs of life between hosts: the first process of each tells process 0 by a datagram
 * that it runs, and is answered; what comes is noted on the board. In a call that may
 * take any time it is all that tells a host that is lost from one that works. */
#ifndef SBNI_BEACON_H
#define SBNI_BEACON_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "comm/board.h"

enum { SBNI_BEACON_ADDRESSES = 8 };

typedef struct sbni_beacon {
    const sbni_board *board; /* NULL: there is one host */
    int rank;
    int fd;         /* -1: no socket, so nothing is sent or heard */
    uint64_t token; /* of this group, in each datagram */
    int addresses;  /* process 0 may have these */
    struct sockaddr_in address[SBNI_BEACON_ADDRESSES];
    struct sockaddr_in answered; /* where its last answer came from */
    int unanswered;              /* datagrams sent since */
    double next_s;               /* when the next one is due */
} sbni_beacon;

/* Where no datagram comes through, or there is no IPv4, no host is ever heard of.
 * @collective over the group where it has several hosts: 48 bytes */
sbn_status sbni_beacon_create(sbn_group *group, const sbni_board *board,
                              sbni_beacon *beacon);
void sbni_beacon_destroy(sbni_beacon *beacon);

/* Send what is due, twice a second, or four times within limit_s where that is more, and
 * note what came. lost: [size] as process 0 sees the hosts, by their first process; it
 * passes on one of them. Never waits; of the watching thread. */
void sbni_beacon_tend(sbni_beacon *beacon, double limit_s, const uint8_t *lost);

#endif

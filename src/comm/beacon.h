/* Signs of life between hosts: the first process of each tells process 0 by a datagram
 * that it runs, and is answered; what comes is counted on the board. In a call that may
 * take any time it is all that tells a host that is lost from one that works. */
#ifndef SBNI_BEACON_H
#define SBNI_BEACON_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "comm/board.h"

enum { SBNI_BEACON_ADDRESSES = 8 };

typedef struct sbni_beacon {
    const sbni_board *board; /* NULL: of one host */
    int fd, rank;            /* -1: no socket, so nothing is sent or heard */
    uint64_t token;          /* of this group, in each datagram */
    int addresses;           /* that process 0 may have */
    struct sockaddr_in address[SBNI_BEACON_ADDRESSES];
    struct sockaddr_in answered; /* the one that it has */
    int unanswered;              /* datagrams since */
    double since_s;              /* the last one */
} sbni_beacon;

/* Where no datagram comes through, or there is no IPv4, no host is ever heard of.
 * @collective over the group where it has several hosts: 48 bytes */
sbn_status sbni_beacon_create(sbn_group *group, const sbni_board *board,
                              sbni_beacon *beacon);
void sbni_beacon_destroy(sbni_beacon *beacon);

/* Send what is due, four times within limit_s or once a second, and count what came.
 * passed_s: since the last call. Never waits; of the watching thread. */
void sbni_beacon_tend(sbni_beacon *beacon, double passed_s, double limit_s);

#endif

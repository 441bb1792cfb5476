/* What the group's calls need of its watch. */
#ifndef SBNI_WATCH_H
#define SBNI_WATCH_H

#include "comm/beacon.h"
#include "comm/board.h"
#include "syncbn/watch.h"

/* One that watches is known to its group; in a group of one nothing is to be watched. */
struct sbn_watch {
    sbn_group *group; /* NULL once that is gone */
    sbni_board board;
    sbni_beacon beacon;
    int rank;
    int64_t entered;              /* calls that nobody keeps */
    struct sbni_watcher *watcher; /* the thread and what is its own; NULL: none */
};

/* Where another process of the host is while this one waits in call `number`; quiet: its
 * thread shows no sign of life. */
typedef enum sbni_absence {
    SBNI_THERE,
    SBNI_NOT_COME,
    SBNI_ELSEWHERE, /* came to another call in the place of this one */
    SBNI_STOPPED    /* came, and is quiet since */
} sbni_absence;
sbni_absence sbni_stall_absence(const sbni_board *board, int seat, uint64_t number,
                                bool quiet);

/* Whether that is for want of this process: one that waits in an earlier call does so for
 * yet another, which may be of another host. */
bool sbni_stall_misses(const sbni_board *board, int seat, uint64_t number, bool quiet);

/* Whether one of n is set. */
bool sbni_any(const uint8_t *of, int n);

/* What is to be told of the call that this process waits in. quiet: [board->here]; lost:
 * [board->size] a host without a sign of life, by its first process. Writes stall->text
 * into text and stall->what into what. */
enum { SBNI_STALL_TEXT = 1024 };
void sbni_stall_tell(const sbni_board *board, int rank, const uint8_t *quiet,
                     const uint8_t *lost, double waited_s, char *what, char *text,
                     sbn_stall *stall);

/* This process's own. */
static inline sbni_seat *sbni_watch_seat(const sbn_watch *watch)
{
    return watch->board.mine;
}

#endif

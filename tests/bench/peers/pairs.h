/* What the C peers share: options, buffers, timing against memcpy in turn, JSON lines. */
#ifndef PEERS_PAIRS_H
#define PEERS_PAIRS_H

#include <stdbool.h>
#include <stdint.h>

enum { MOST_SHAPES = 64 };

typedef enum layout { NCHW, NHWC, NC, BLOCKED16, LAYOUTS } layout;
extern const char *const layout_names[LAYOUTS];

typedef struct shape {
    int64_t n, c, h, w; /* (n,c): h and w are 1 */
    bool flat;          /* given as (n,c) */
} shape;

/* What the command line asked for. */
typedef struct wishes {
    shape shapes[MOST_SHAPES];
    int shape_count, threads, pairs;
    bool layouts[LAYOUTS], passes[2]; /* forward, backward */
} wishes;

/* Fills the defaults, then reads the options; prints usage and exits on a wrong one. */
wishes wishes_read(int argc, char **argv);

/* One batch with its results, float32, every page touched. x and dy are drawn the same
 * way in every program; eps is 1e-5. */
typedef struct batch {
    shape s;
    layout in;
    int64_t count;          /* elements of x */
    float *x, *dy, *y, *dx; /* [count] */
    float *gamma, *beta;    /* [c] */
    float *mean, *var;      /* [c] of the peer's forward */
    float *dgamma, *dbeta;  /* [c] */
} batch;

batch batch_make(shape s, layout in);
void batch_free(batch *b);

/* Ends the program unless y (or dx, dgamma and dbeta) of the first and last channel is
 * batch normalization in training mode; `peer` is for the text. */
void batch_check(const batch *b, const char *peer, bool backward);

/* Times `run` and memcpy of x in turn and prints one JSON line. A sample repeats what is
 * short until a clock can tell. */
void pairs_print(const batch *b, const wishes *w, const char *peer, const char *version,
                 bool backward, void (*run)(void *), void *arg);

#endif

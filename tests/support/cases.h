/* Shapes of batches that tests and benchmarks read. */
#ifndef SUPPORT_CASES_H
#define SUPPORT_CASES_H

#include <stdint.h>

typedef struct norm_case {
    int64_t n, c, h, w;
    int64_t norm_batch; /* 0: all samples share statistics */
} norm_case;

/* Channels 1, 3, 7, 100 (one, odd, not a power of two, many); pixels 1, 5, 25, 64 (rows,
 * below, above and a multiple of a vector); batches below, at and above a slice; norm
 * batches that are smaller than a share, straddle processes, are no multiple of a slice,
 * end short. */
static const norm_case norm_cases[] = {
    {2, 1, 1, 1, 0},     {3, 3, 1, 1, 0},   {16, 7, 1, 1, 0},  {17, 100, 1, 1, 0},
    {37, 3, 1, 5, 0},    {24, 1, 5, 5, 0},  {33, 7, 8, 8, 0},  {64, 100, 1, 1, 0},
    {5, 100, 1, 5, 0},   {80, 7, 1, 5, 0},  {1, 3, 5, 5, 0},   {48, 3, 1, 1, 2},
    {40, 7, 1, 1, 8},    {50, 3, 1, 5, 16}, {64, 7, 1, 1, 20}, {61, 3, 5, 5, 17},
    {70, 100, 1, 1, 32}, {33, 1, 1, 5, 1},  {96, 3, 8, 8, 48}, {20, 7, 1, 1, 64},
};
enum { NORM_CASES = sizeof norm_cases / sizeof *norm_cases };

/* Sizes around a vector of 8 lanes, two of them, and a register of 16 floats. */
static const int64_t edge_sizes[] = {1,  2,  3,  5,  7,  8,  9,  15,
                                     16, 17, 25, 31, 32, 33, 64, 100};
enum { EDGE_SIZES = sizeof edge_sizes / sizeof *edge_sizes };

#endif

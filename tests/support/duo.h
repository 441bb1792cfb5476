/* A layer on a process's share of a trial's batches, and a layer of one process on the
 * same samples without any of what must not show: split, masks, strides, threads, halves.
 */
#ifndef SUPPORT_DUO_H
#define SUPPORT_DUO_H

#include "support/trial.h"

/* A layer and its tensors of a step. */
typedef struct side {
    sbn_norm *norm;
    trial_share share;
    slab slabs[TRIAL_TENSORS];    /* without memory where in another's place */
    sbn_tensor *t[TRIAL_TENSORS]; /* NULL where not wanted */
} side;

typedef struct duo {
    const trial *t;
    int step;
    trial_batch batch;
    side group, alone; /* alone: its samples begin at alone.share.first of the batch */
    char *peeked;      /* what group saw on evaluating before backward */
} duo;

/*
 * Run some trials, drawn from a seed that is printed. The environment has the last word:
 * SBN_TEST_SEED, SBN_TEST_CASES, and SBN_TEST_CASE for a single one. self: a group of
 * this process. @collective
 */
void duo_each(uint64_t cases, void (*run)(const trial *t, sbn_group *self));

/* Create both layers, with gamma, beta and averages as drawn. @collective */
void duo_open(duo *d, const trial *t, sbn_group *group, sbn_group *self);
void duo_close(duo *d);

/* Tensors of a step on both sides, and the settings that its calls need. */
void duo_begin(duo *d, int step);
void duo_end(duo *d);
void side_set(const trial *t, const trial_step *k, side *s);

sbn_status side_forward(const trial_step *k, side *s, bool halves, bool meddle);
sbn_status side_backward(const trial_step *k, side *s, bool halves);

/* Both halves of the step on both sides, every bit compared. duo_forward is false where
 * it ended in the error that was due; then, and where the step has none, there is nothing
 * to go back from. @collective */
bool duo_forward(duo *d);
void duo_backward(duo *d);

/* Parts of them: tensor `which` of the group's side has the bits of alone's on its
 * samples, zeros in those left out, and nothing between its elements; and the state. */
void duo_same_tensor(const duo *d, int which);
void duo_same_state(const duo *d);

/* Copy of a layer's state but gamma and beta; free(). */
char *side_state(const trial *t, const side *s, int64_t *bytes);

/* Print the trial and what went wrong, and fail. */
void duo_fail(const duo *d, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void duo_expect(const duo *d, sbn_status got, sbn_status want, const char *call);

#endif

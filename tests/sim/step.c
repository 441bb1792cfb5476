/*
 * Training steps of a net on a simulated cluster. Computing takes the time that is said
 * for an image; what messages take is the simulator's reckoning. Two processes train
 * alone first, to learn which messages a step sends, as these depend on nothing else.
 * Then `real`: all train together by the library's own messages. And in every case: the
 * same messages alone, and those that plain floating-point sums would need. Process 0
 * prints one JSON object.
 *
 *   smpirun … step.so NET BATCH STEPS SECONDS_PER_IMAGE real|replay
 */
#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/bare.h"
#include "comm/group.h"
#include "core/clock.h"
#include "core/memory.h"
#include "core/status.h"
#include "syncbn/model.h"

typedef struct settings {
    const char *net;
    int64_t batch, steps;
    double image_s;
    bool real;
} settings;

/* Seconds of one step. */
typedef struct costs {
    double step, norm, gradients;
} costs;

/* Messages of a step. */
typedef struct message {
    int64_t words;
    bool norm; /* else of gradients */
} message;
enum { MAX_MESSAGES = 400 };
typedef struct plan {
    int count;
    message list[MAX_MESSAGES];
} plan;

static void add(plan *p, int64_t words, bool norm)
{
    if (p->count < MAX_MESSAGES) p->list[p->count++] = (message){words, norm};
}

/* Only their spread matters: no norm may see a constant. */
static void fill_input(sbn_model *model, int64_t first, int64_t n)
{
    int64_t capacity;
    float *x = sbn_model_input(model, &capacity);
    sbn_tensor one = sbn_model_input_shape(model);
    int64_t count = one.c * one.h * one.w;
    for (int64_t i = 0; i < n * count; i++)
        x[i] = (float)((first * count + i) * 2654435761 % 1009) / 1009;
}

static sbn_status run_steps(const settings *s, sbn_group *group, sbn_model *model,
                            costs *cost)
{
    int64_t first, n;
    SBN_TRY(sbn_model_share(model, s->batch, &first, &n));
    int32_t *labels;
    SBN_TRY(sbni_alloc(n + 1, sizeof *labels, "labels", &labels));
    for (int64_t i = 0; i < n; i++)
        labels[i] = (int32_t)((first + i) % sbn_model_classes(model));
    fill_input(model, first, n);
    sbn_model_result result;
    sbn_status status = SBN_OK;
    double began_s = 0;
    for (int64_t step = -1; step < s->steps && status == SBN_OK; step++) {
        if (step == 0) { /* the first finds the gradients' exponents */
            SBN_TRY(sbni_bare_barrier(group));
            sbn_group_clear_traffic(group);
            began_s = sbni_clock_s();
        }
        smpi_execute((double)n * s->image_s);
        status = sbn_model_gradient(model, labels, s->batch, &result);
    }
    cost->step = (sbni_clock_s() - began_s) / (double)s->steps;
    sbni_free(labels);
    return status;
}

/* What the group's rows say of a step, and its messages. */
static void read_rows(const settings *s, const sbn_group *group, costs *cost, plan *sent)
{
    sbn_traffic row;
    sent->count = 0;
    for (int i = 0; sbn_group_traffic(group, i, &row); i++) {
        bool norm = !strcmp(row.phase, "forward") || !strcmp(row.phase, "backward");
        if (!norm && strcmp(row.phase, "gradients") != 0) continue;
        *(norm ? &cost->norm : &cost->gradients) += row.wait_s / (double)s->steps;
        for (int64_t k = 0; k < row.messages / s->steps; k++)
            add(sent, row.bytes / row.messages / 8, norm);
    }
}

/* The messages of a step with plain sums: [Σx, Σx², n] forward, [Σdy, Σdy·x̂] backward,
 * in double; gradients and the loss in float. */
static void plain_messages(const sbn_model *model, plan *plain)
{
    int tensors;
    const sbn_model_tensor *t = sbn_model_tensors(model, &tensors);
    int64_t weights = 0;
    plain->count = 0;
    for (int i = 0; i < tensors; i++) {
        if (t[i].grad) weights += t[i].count;
        if (!strstr(t[i].name, ".running_mean")) continue;
        weights -= 2 * t[i].count; /* gamma and beta are the backward message */
        add(plain, 2 * t[i].count + 1, true);
        add(plain, 2 * t[i].count, true);
    }
    add(plain, weights / 2 + 1, false);
}

/* A step's messages and nothing else. */
static sbn_status replay(const settings *s, sbn_group *group, const plan *p, costs *cost)
{
    int64_t most = 1, *send = NULL, *sum = NULL;
    for (int i = 0; i < p->count; i++)
        if (p->list[i].words > most) most = p->list[i].words;
    sbn_status status = sbni_alloc(most, 8, "message", &send);
    if (status == SBN_OK) status = sbni_alloc(most, 8, "message", &sum);
    if (status == SBN_OK) status = sbni_bare_barrier(group);
    for (int64_t k = 0; k < s->steps * p->count && status == SBN_OK; k++) {
        const message *m = &p->list[k % p->count];
        double began_s = sbni_clock_s();
        status = sbni_bare_sum(group, send, m->words, sum);
        double took_s = (sbni_clock_s() - began_s) / (double)s->steps;
        *(m->norm ? &cost->norm : &cost->gradients) += took_s;
    }
    sbni_free(send);
    sbni_free(sum);
    return status;
}

static sbn_status train(const settings *s, sbn_group *group, costs *cost, plan *sent,
                        plan *plain)
{
    sbn_model_config cfg = sbn_model_config_default(s->net, s->batch);
    cfg.overlap = SBN_OVERLAP_NEVER; /* the simulator's non-blocking sums are of another
                                        algorithm */
    sbn_model *model;
    SBN_TRY(sbn_model_create(&cfg, group, &model));
    sbn_status status = run_steps(s, group, model, cost);
    if (status == SBN_OK) {
        read_rows(s, group, cost, sent);
        plain_messages(model, plain);
    }
    sbn_model_destroy(&model);
    return status;
}

/* Which messages a step has, from one that processes 0 and 1 train. */
static sbn_status learn_messages(const settings *s, sbn_group *all, plan *sent,
                                 plan *plain)
{
    settings small = *s;
    small.batch = 2 * SBN_SLICE;
    small.steps = 1;
    costs unused = {0};
    sbn_group *pair = NULL;
    int rank = sbn_group_rank(all);
    SBN_TRY(sbn_group_split(MPI_COMM_WORLD, rank < 2 ? 0 : MPI_UNDEFINED, rank, &pair));
    sbn_status status = pair ? train(&small, pair, &unused, sent, plain) : SBN_OK;
    sbn_group_destroy(&pair);
    SBN_TRY(sbn_group_agree(all, status));
    SBN_TRY(sbni_group_broadcast(all, sent, sizeof *sent, 0));
    return sbni_group_broadcast(all, plain, sizeof *plain, 0);
}

static int64_t bytes_of(const plan *p, bool norm)
{
    int64_t bytes = 0;
    for (int i = 0; i < p->count; i++)
        if (p->list[i].norm == norm) bytes += 8 * p->list[i].words;
    return bytes;
}

static void print_part(const char *name, const plan *p, const costs *c)
{
    printf(",\"%s\":{\"messages\":%d,\"norm_bytes\":%lld,\"gradient_bytes\":%lld,"
           "\"norm_s\":%.9f,\"gradients_s\":%.9f}",
           name, p->count, (long long)bytes_of(p, true), (long long)bytes_of(p, false),
           c->norm, c->gradients);
}

static sbn_status simulate(const settings *s, sbn_group *group)
{
    static plan sent, plain; /* the simulator gives each process its own */
    costs real = {0}, exact = {0}, floats = {0};
    SBN_TRY(learn_messages(s, group, &sent, &plain));
    if (s->real) SBN_TRY(train(s, group, &real, &sent, &plain));
    SBN_TRY(replay(s, group, &sent, &exact));
    SBN_TRY(replay(s, group, &plain, &floats));
    if (sbn_group_rank(group) != 0) return SBN_OK;
    /* a process has whole slices, of which the first has as many as any */
    int64_t slices = (s->batch + SBN_SLICE - 1) / SBN_SLICE, size = sbn_group_size(group);
    double compute_s = (double)((slices + size - 1) / size * SBN_SLICE) * s->image_s;
    printf("{\"kind\":\"simulation\",\"net\":\"%s\",\"np\":%lld,\"batch\":%lld,"
           "\"compute_s\":%.9f",
           s->net, (long long)size, (long long)s->batch, compute_s);
    if (s->real) {
        printf(",\"step_s\":%.9f", real.step);
        print_part("step", &sent, &real);
    }
    print_part("exact", &sent, &exact);
    print_part("plain", &plain, &floats);
    printf("}\n");
    return SBN_OK;
}

/* Found by name in the module. */
SBN_API int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    sbn_group *group = NULL;
    sbn_status status = sbn_group_create(MPI_COMM_WORLD, &group);
    if (argc != 6) {
        status = SBN_E_ARG;
        fprintf(stderr, "usage: step.so NET BATCH STEPS SECONDS_PER_IMAGE real|replay\n");
    } else if (status == SBN_OK) {
        settings s = {argv[1], atoll(argv[2]), atoll(argv[3]), atof(argv[4]),
                      !strcmp(argv[5], "real")};
        status = simulate(&s, group);
        if (status != SBN_OK && status != SBN_E_PEER)
            fprintf(stderr, "step: %s\n", sbn_last_error());
    }
    sbn_group_destroy(&group);
    MPI_Finalize();
    return status != SBN_OK;
}

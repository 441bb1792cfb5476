#include "train/stop.h"

#include <stdio.h>
#include <unistd.h>

#include "core/clock.h"

/* Apart by more than there are processes. */
enum { SIGNALLED = 1, LATE = 1 << 20 };
#define HALTED (INT64_C(1) << 40)

static bool halt_path(const sbn_trainer_config *cfg, char *path, size_t bytes)
{
    return cfg->out && snprintf(path, bytes, "%s/halt", cfg->out) < (int)bytes;
}

sbni_stop sbni_stop_begin(const sbn_trainer_config *cfg, bool looks)
{
    return (sbni_stop){cfg, sbni_clock_s(), 0, looks};
}

static bool has_halt_file(sbni_stop *stop, double now_s)
{
    char path[4096];
    if (!stop->looks || now_s - stop->looked_s < 1) return false;
    stop->looked_s = now_s;
    return halt_path(stop->cfg, path, sizeof path) && access(path, F_OK) == 0;
}

int64_t sbni_stop_vote(sbni_stop *stop)
{
    double now_s = sbni_clock_s();
    int64_t vote = 0;
    if (stop->cfg->stop && *stop->cfg->stop) vote += SIGNALLED;
    if (stop->cfg->max_time_s > 0 && now_s - stop->began_s >= stop->cfg->max_time_s)
        vote += LATE;
    if (has_halt_file(stop, now_s)) vote += HALTED;
    return vote;
}

const char *sbni_stop_reason(int64_t votes)
{
    return votes >= HALTED ? "a halt file"
           : votes >= LATE ? "its time limit"
                           : "a signal";
}

void sbni_stop_heeded(const sbni_stop *stop)
{
    char path[4096];
    if (stop->looks && halt_path(stop->cfg, path, sizeof path)) unlink(path);
}

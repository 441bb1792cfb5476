#define _GNU_SOURCE /* gethostname under c11 */
#include "train/runfile.h"

#include <errno.h>
#include <jansson.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm/group.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"
#include "nn/normkind.h"
#include "train/file.h"
#include "train/settings.h"
#include "version.h" /* made by Meson */

/* The CPU's name from the system's description, "" where there is none. */
static void cpu_name(char *name, size_t bytes)
{
    name[0] = 0;
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (!f) return;
    char line[256];
    while (fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon) continue;
        snprintf(name, bytes, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    fclose(f);
}

void sbni_machine_get(sbni_machine *m)
{
    cpu_name(m->cpu, sizeof m->cpu);
    m->cores = omp_get_num_procs();
    m->threads = omp_get_max_threads();
    m->isa = sbni_kernels_get(SBN_F32)->isa;
    m->mpi = sbni_mpi_version();
    m->blas = sbni_gemm_version();
    m->version = SBNI_VERSION;
    m->revision = SBNI_REVISION;
}

/* A path may hold bytes that JSON cannot; they are shown as question marks. */
static json_t *text_of(const char *text)
{
    json_t *json = json_string(text);
    if (json) return json;
    char ascii[1024];
    snprintf(ascii, sizeof ascii, "%s", text);
    for (char *at = ascii; *at; at++)
        if ((unsigned char)*at >= 0x80) *at = '?';
    return json_string(ascii);
}

static json_t *renorm_of(const sbn_renorm_schedule *s)
{
    return json_pack("{s:f s:f s:I s:I s:I}", "renorm_r_max", s->r_max, "renorm_d_max",
                     s->d_max, "renorm_warmup", (json_int_t)s->warmup, "renorm_r_steps",
                     (json_int_t)s->r_steps, "renorm_d_steps", (json_int_t)s->d_steps);
}

static json_t *optimizer_of(const sbn_trainer_config *c)
{
    return json_pack(
        "{s:s s:f s:f s:f s:f s:f s:f s:o}", "optimizer",
        sbni_optimizer_name(c->optimizer), "adam_beta1", c->adam_beta1, "adam_beta2",
        c->adam_beta2, "adam_eps", c->adam_eps, "label_smoothing", c->label_smoothing,
        "init_scale", c->init_scale, "init_sigma", c->init_sigma, "dropout",
        c->dropout == SBN_DROPOUT_NET ? json_string("net") : json_real(c->dropout));
}

static json_t *samples_of(const sbn_trainer_config *c)
{
    return json_pack("{s:I s:I s:b s:s?}", "classes", (json_int_t)c->classes,
                     "augment_shift", (json_int_t)c->augment_shift, "augment_flip",
                     (int)c->augment_flip, "shift", c->shift);
}

static json_t *probes_of(const sbn_trainer_config *c)
{
    return json_pack("{s:I s:I s:I s:I s:f s:o s:I s:b s:I}", "eval_every",
                     (json_int_t)c->eval_every, "log_every", (json_int_t)c->log_every,
                     "eval_train", (json_int_t)c->eval_train, "precise_stats",
                     (json_int_t)c->precise, "target", c->target, "track",
                     c->track ? text_of(c->track) : json_null(), "track_every",
                     (json_int_t)c->track_every, "stat_noise", (int)c->stat_noise,
                     "noise_scale", (json_int_t)c->noise_scale);
}

static const char *overlap_name(sbn_overlap overlap)
{
    return overlap == SBN_OVERLAP_NEVER    ? "never"
           : overlap == SBN_OVERLAP_ALWAYS ? "always"
                                           : "network";
}

static json_t *settings_of(const sbn_trainer_config *c)
{
    char norm[SBNI_NORMKIND_BYTES];
    sbni_normkind_print(c->norm, c->norm_groups, norm);
    json_t *settings = json_pack(
        "{s:o s:o s:I s:I s:s s:f s:f s:I s:I s:f s:s s:I s:I s:f s:f s:b s:f s:b"
        " s:I s:I s:I s:b s:I s:s s:s}",
        "net", text_of(c->net), "data", text_of(c->data), "batch", (json_int_t)c->batch,
        "norm_batch", (json_int_t)c->norm_batch, "norm", norm, "norm_eps", c->norm_eps,
        "norm_momentum", c->norm_momentum, "epochs", (json_int_t)c->epochs, "steps",
        (json_int_t)c->steps, "lr", c->schedule.lr, "schedule",
        sbni_schedule_name(c->schedule.kind), "warmup", (json_int_t)c->schedule.warmup,
        "lr_every", (json_int_t)c->schedule.every, "lr_factor", c->schedule.factor,
        "momentum", c->momentum, "nesterov", (int)c->nesterov, "weight_decay",
        c->weight_decay, "decay_all", (int)c->decay_all, "seed", (json_int_t)c->seed,
        "limit_train", (json_int_t)c->limit_train, "limit_test",
        (json_int_t)c->limit_test, "drop_last", (int)c->drop_last, "checkpoint_every",
        (json_int_t)c->checkpoint_every, "norm_running",
        c->norm_running == SBN_RUNNING_WHOLE_BATCH ? "batch" : "norm-batches", "overlap",
        overlap_name(c->overlap));
    if (settings) json_object_update_new(settings, optimizer_of(c));
    if (settings) json_object_update_new(settings, samples_of(c));
    if (settings) json_object_update_new(settings, probes_of(c));
    if (settings && c->norm == SBN_MODEL_NORM_RENORM)
        json_object_update_new(settings, renorm_of(&c->renorm));
    return settings;
}

static json_t *memory_of(const sbn_model_memory *m)
{
    return json_pack(
        "{s:I s:I s:I s:I s:I}", "activations_bytes", (json_int_t)m->activations_bytes,
        "work_bytes", (json_int_t)m->work_bytes, "parameters_bytes",
        (json_int_t)m->parameters_bytes, "gradients_bytes",
        (json_int_t)m->gradients_bytes, "messages_bytes", (json_int_t)m->messages_bytes);
}

static const char *run_id(void)
{
    const char *id = getenv("SBN_RUN_ID");
    return id && *id ? id : NULL;
}

sbn_status sbni_runfile_same(const char *path, bool *same)
{
    *same = true;
    if (!run_id()) return SBN_OK;
    FILE *file = fopen(path, "re");
    SBN_CHECK(file || errno == ENOENT, SBN_E_IO, "cannot open %s: %s", path,
              strerror(errno));
    json_t *run = file ? json_loadf(file, 0, NULL) : NULL;
    const char *id = json_string_value(json_object_get(run, "run_id"));
    *same = id && strcmp(id, run_id()) == 0;
    json_decref(run);
    if (file) fclose(file);
    return SBN_OK;
}

sbn_status sbni_runfile_write(const char *path, const sbn_trainer_config *cfg,
                              const sbn_model_memory *memory, int np, int hosts)
{
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    sbni_machine m;
    sbni_machine_get(&m);
    json_t *run = json_pack(
        "{s:o? s:o? s:{s:s s:s s:s s:s} s:i s:i s:i s:s s:s s:s}", "settings",
        settings_of(cfg), "memory", memory_of(memory), "versions", "syncbn", m.version,
        "revision", m.revision, "mpi", m.mpi, "blas", m.blas, "processes", np, "hosts",
        hosts, "threads", m.threads, "host", host, "cpu", m.cpu, "isa", m.isa);
    if (run && run_id()) json_object_set_new(run, "run_id", json_string(run_id()));
    char *text = run ? json_dumps(run, JSON_INDENT(2)) : NULL;
    json_decref(run);
    SBN_CHECK(text, SBN_E_MEMORY, "%s: no memory", path);
    sbn_status status = sbni_replacement_text(path, text);
    free(text);
    return status;
}

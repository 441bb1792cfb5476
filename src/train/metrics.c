#include "train/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/memory.h"
#include "core/text.h"
#include "train/file.h"

/* A line has a bounded number of fields, each of at most 25 digits. */
enum { LINE_BYTES = 512, BUFFER_BYTES = 1 << 16 };

struct sbni_metrics {
    char *path;
    int fd;
    int64_t used;
    char buffer[BUFFER_BYTES];
};

typedef struct line {
    char text[LINE_BYTES];
    int used;
    bool nonfinite;
} line;

typedef enum fate { KEEP, DROP, UNREADABLE } fate;

static fate judge(const char *text, size_t bytes, int64_t resume_step)
{
    json_t *record = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
    const char *kind = json_string_value(json_object_get(record, "kind"));
    const json_t *step = json_object_get(record, "step");
    fate result = DROP;
    if (!kind)
        result = UNREADABLE;
    else if (strcmp(kind, "done") != 0 && json_is_integer(step) &&
             json_integer_value(step) <= resume_step)
        result = KEEP;
    json_decref(record);
    return result;
}

/* Move the lines to keep to the front; bytes becomes their length. Lines that cannot be
 * read are what a crash leaves at the end; before a line to keep they are damage. */
static sbn_status cut(const char *path, char *text, int64_t *bytes, int64_t resume_step)
{
    const char *from = text, *end = text + *bytes, *stop;
    char *to = text;
    int64_t number = 0, unreadable = 0;
    for (; (stop = memchr(from, '\n', (size_t)(end - from))); from = stop + 1) {
        number++;
        fate what = judge(from, (size_t)(stop - from), resume_step);
        if (what == UNREADABLE && !unreadable) unreadable = number;
        if (what != KEEP) continue;
        SBN_CHECK(!unreadable, SBN_E_DATA,
                  "%s: line %" PRId64
                  " is no record of metrics; repair or remove the file",
                  path, unreadable);
        size_t length = (size_t)(stop + 1 - from);
        memmove(to, from, length);
        to += length;
    }
    *bytes = to - text;
    return SBN_OK;
}

static sbn_status read_whole(const char *path, int64_t bytes, char *text)
{
    FILE *file = fopen(path, "rb");
    SBN_CHECK(file, SBN_E_IO, "cannot open %s: %s", path, strerror(errno));
    errno = 0;
    sbn_status status = SBN_OK;
    if (fread(text, 1, (size_t)bytes, file) != (size_t)bytes)
        status = sbni_fail(SBN_E_IO, "cannot read %s: %s", path,
                           errno ? strerror(errno) : "it became shorter");
    fclose(file);
    return status;
}

static sbn_status resume(const char *path, int64_t resume_step)
{
    struct stat s;
    if (stat(path, &s) != 0) {
        SBN_CHECK(errno == ENOENT, SBN_E_IO, "cannot open %s: %s", path, strerror(errno));
        return SBN_OK;
    }
    /* A pipe or a device holds no earlier run. */
    if (!S_ISREG(s.st_mode)) return SBN_OK;
    sbn_status status;
    int64_t bytes = s.st_size;
    char *text = NULL;
    sbni_replacement *file = NULL;
    SBN_GOTO(sbni_alloc(bytes, 1, "metrics of the earlier run", &text));
    SBN_GOTO(read_whole(path, bytes, text));
    SBN_GOTO(cut(path, text, &bytes, resume_step));
    SBN_GOTO(sbni_replacement_begin(path, &file));
    SBN_GOTO(sbni_replacement_write(file, text, bytes));
    SBN_GOTO(sbni_replacement_commit(file, NULL));
fail:
    sbni_replacement_end(&file);
    sbni_free(text);
    return status;
}

sbn_status sbni_metrics_open(const char *path, int64_t resume_step,
                             sbni_metrics **metrics)
{
    *metrics = NULL;
    if (resume_step >= 0) SBN_TRY(resume(path, resume_step));
    sbni_metrics *m = NULL;
    SBN_TRY(sbni_alloc(1, sizeof *m, "metrics", &m));
    sbn_status status;
    m->fd = -1;
    SBN_GOTO(sbni_copy_string(path, &m->path));
    int empty = resume_step < 0 ? O_TRUNC : 0;
    m->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | empty, 0666);
    if (m->fd < 0) {
        status = sbni_fail(SBN_E_IO, "cannot open %s: %s", path, strerror(errno));
        goto fail;
    }
    /* The file may be new, and syncing its data does not make its name durable. */
    SBN_GOTO(sbni_file_sync_folder(path));
    *metrics = m;
    return SBN_OK;
fail:
    sbni_metrics_close(&m);
    return status;
}

static void put_text(line *l, const char *text)
{
    l->used += snprintf(l->text + l->used, (size_t)(LINE_BYTES - l->used), "%s", text);
}

static void put_key(line *l, const char *key)
{
    put_text(l, ",\"");
    put_text(l, key);
    put_text(l, "\":");
}

static void put_whole(line *l, const char *key, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, value);
    put_key(l, key);
    put_text(l, text);
}

/* A name of letters, digits and _. */
static void put_word(line *l, const char *key, const char *word)
{
    put_key(l, key);
    put_text(l, "\"");
    put_text(l, word);
    put_text(l, "\"");
}

static void put_real(line *l, const char *key, double value)
{
    char text[40] = "null";
    put_key(l, key);
    if (isfinite(value)) {
        sbni_text_real(value, text, sizeof text);
    } else {
        l->nonfinite = true;
    }
    put_text(l, text);
}

static void begin(line *l, const char *kind)
{
    l->used = 0;
    l->nonfinite = false;
    put_text(l, "{\"kind\":\"");
    put_text(l, kind);
    put_text(l, "\"");
}

/* End the line and buffer it. A line that finds no room is not added at all, so what is
 * written is always a sequence of whole lines. */
static sbn_status end(sbni_metrics *m, line *l)
{
    put_text(l, l->nonfinite ? ",\"nonfinite\":true}\n" : "}\n");
    if (m->used + l->used > BUFFER_BYTES) SBN_TRY(sbni_metrics_flush(m, 0));
    memcpy(m->buffer + m->used, l->text, (size_t)l->used);
    m->used += l->used;
    return SBN_OK;
}

sbn_status sbni_metrics_step(sbni_metrics *m, int64_t step, int64_t epoch, double loss,
                             double lr, const sbn_norm_clipped *renorm)
{
    line l;
    begin(&l, "step");
    put_whole(&l, "step", step);
    put_whole(&l, "epoch", epoch);
    put_real(&l, "loss", loss);
    put_real(&l, "lr", lr);
    if (renorm) {
        put_real(&l, "r_max", renorm->r_max);
        put_real(&l, "d_max", renorm->d_max);
        put_real(&l, "r_clipped", renorm->r);
        put_real(&l, "d_clipped", renorm->d);
    }
    return end(m, &l);
}

static void put_scores(line *l, const sbni_score *test, const sbni_score *train)
{
    put_real(l, "test_loss", test->loss);
    put_real(l, "test_accuracy", test->accuracy);
    if (!train) return;
    put_real(l, "train_loss", train->loss);
    put_real(l, "train_accuracy", train->accuracy);
}

sbn_status sbni_metrics_eval(sbni_metrics *m, int64_t step, int64_t epoch,
                             const sbni_score *test, const sbni_score *train)
{
    line l;
    begin(&l, "eval");
    put_whole(&l, "epoch", epoch);
    put_whole(&l, "step", step);
    put_scores(&l, test, train);
    return end(m, &l);
}

sbn_status sbni_metrics_precise(sbni_metrics *m, int64_t step, int64_t samples,
                                const sbni_score *test, const sbni_score *train)
{
    line l;
    begin(&l, "precise");
    put_whole(&l, "step", step);
    put_whole(&l, "samples", samples);
    put_scores(&l, test, train);
    return end(m, &l);
}

sbn_status sbni_metrics_activations(sbni_metrics *m, int64_t step, const char *layer,
                                    int64_t unit, const double p[3])
{
    line l;
    begin(&l, "activations");
    put_whole(&l, "step", step);
    put_word(&l, "layer", layer);
    put_whole(&l, "unit", unit);
    put_real(&l, "p15", p[0]);
    put_real(&l, "p50", p[1]);
    put_real(&l, "p85", p[2]);
    return end(m, &l);
}

sbn_status sbni_metrics_statistics(sbni_metrics *m, int64_t step, const char *layer,
                                   sbni_noise noise)
{
    line l;
    begin(&l, "statistics");
    put_whole(&l, "step", step);
    put_word(&l, "layer", layer);
    put_real(&l, "mean_noise", noise.mean);
    put_real(&l, "var_noise", noise.var);
    return end(m, &l);
}

sbn_status sbni_metrics_noise_scale(sbni_metrics *m, int64_t step,
                                    const sbni_noise_scale *noise)
{
    line l;
    begin(&l, "noise_scale");
    put_whole(&l, "step", step);
    put_whole(&l, "small", noise->small);
    put_whole(&l, "big", noise->big);
    put_real(&l, "grad_sq", noise->grad_sq);
    put_real(&l, "trace", noise->trace);
    put_real(&l, "noise_scale", noise->quotient);
    return end(m, &l);
}

sbn_status sbni_metrics_done(sbni_metrics *m, int64_t steps, double seconds,
                             double images_per_s, double test_accuracy, double target,
                             bool reached)
{
    line l;
    begin(&l, "done");
    put_whole(&l, "steps", steps);
    put_real(&l, "seconds", seconds);
    put_real(&l, "images_per_s", images_per_s);
    put_real(&l, "test_accuracy", test_accuracy);
    if (target > 0) {
        put_real(&l, "target", target);
        put_key(&l, "reached");
        put_text(&l, reached ? "true" : "false");
    }
    return end(m, &l);
}

sbn_status sbni_metrics_flush(sbni_metrics *m, int sync)
{
    int64_t done = sbni_file_write(m->fd, m->buffer, m->used);
    int reason = errno;
    /* What was not taken stays, so that a later flush goes on at the right byte. */
    memmove(m->buffer, m->buffer + done, (size_t)(m->used - done));
    m->used -= done;
    SBN_CHECK(m->used == 0, SBN_E_IO, "cannot write %s: %s", m->path, strerror(reason));
    return sync ? sbni_file_sync(m->fd, m->path) : SBN_OK;
}

sbn_status sbni_metrics_close(sbni_metrics **metrics)
{
    if (!metrics || !*metrics) return SBN_OK;
    sbni_metrics *m = *metrics;
    sbn_status status = SBN_OK;
    if (m->fd >= 0) {
        status = sbni_metrics_flush(m, 0);
        if (close(m->fd) != 0 && status == SBN_OK)
            status = sbni_fail(SBN_E_IO, "cannot write %s: %s", m->path, strerror(errno));
    }
    sbni_free(m->path);
    sbni_free(m);
    *metrics = NULL;
    return status;
}

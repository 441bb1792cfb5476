#include "train/progress.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/memory.h"

/* WINDOW_S of rate, remembered as that many marks. */
enum { MARKS = 64, TEXT_BYTES = 256 };
static const double WINDOW_S = 8, REDRAW_S = 0.1, LINES_S = 10;

typedef struct mark {
    double time_s;
    int64_t step, images;
} mark;

struct sbni_progress {
    sbn_progress_style style; /* TTY, LINES or NONE */
    int64_t steps, epochs;
    int64_t step, images; /* so far; images of this process's run only */
    double drawn_s;       /* when the last line was written */
    bool dirty;           /* the cursor's line shows progress */
    mark marks[MARKS];    /* a ring, oldest at `oldest` */
    int oldest, n_marks;
};

static sbn_progress_style resolve(sbn_progress_style style)
{
    if (style != SBN_PROGRESS_AUTO) return style;
    const char *told = getenv("SYNCBN_TTY");
    bool terminal = isatty(STDERR_FILENO) || (told && strcmp(told, "1") == 0);
    return terminal ? SBN_PROGRESS_TTY : SBN_PROGRESS_LINES;
}

/* A redrawn line must not wrap, or each redraw would leave a row behind. */
static int columns(void)
{
    struct winsize size = {.ws_col = 0};
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    const char *told = getenv("COLUMNS");
    int n = told ? atoi(told) : 0;
    return n > 0 ? n : 80;
}

/* End the UTF-8 text before it fills more than `most` columns. */
static void clip(char *text, int most)
{
    int used = 0;
    for (; *text; text++) {
        bool starts = ((unsigned char)*text & 0xc0) != 0x80;
        if (starts && used++ == most) break;
    }
    *text = 0;
}

static void show(sbni_progress *p, char *text, bool stays)
{
    if (p->style == SBN_PROGRESS_TTY) {
        if (!stays) clip(text, columns() - 1);
        fprintf(stderr, "\r%s\033[K%s", text, stays ? "\n" : "");
        p->dirty = !stays;
    } else {
        fprintf(stderr, "%s\n", text);
    }
    fflush(stderr);
}

/* Forget the past rate and measure from here on. */
static void restart(sbni_progress *p, double now_s)
{
    p->oldest = 0;
    p->n_marks = 1;
    p->marks[0] = (mark){now_s, p->step, p->images};
}

/* Slide the window. The oldest mark kept is the last one at or before its start, so that
 * a step longer than the window is measured whole. */
static void remember(sbni_progress *p, double now_s)
{
    while (p->n_marks > 1 &&
           p->marks[(p->oldest + 1) % MARKS].time_s <= now_s - WINDOW_S) {
        p->oldest = (p->oldest + 1) % MARKS;
        p->n_marks--;
    }
    const mark *last = &p->marks[(p->oldest + p->n_marks - 1) % MARKS];
    if (p->n_marks == MARKS || now_s - last->time_s < WINDOW_S / (MARKS - 2)) return;
    p->marks[(p->oldest + p->n_marks++) % MARKS] = (mark){now_s, p->step, p->images};
}

static int put_total(char *text, size_t room, int64_t total)
{
    return total > 0 ? snprintf(text, room, "/%" PRId64, total) : 0;
}

/* 24100 as 24,100 */
static int put_grouped(char *text, size_t room, double value)
{
    char digits[32];
    int n = snprintf(digits, sizeof digits, "%.0f", fmin(value, 1e15)), used = 0;
    for (int i = 0; i < n; i++)
        used += snprintf(text + used, room - (size_t)used,
                         i && (n - i) % 3 == 0 ? ",%c" : "%c", digits[i]);
    return used;
}

static int put_left(char *text, size_t room, double seconds)
{
    if (!(seconds >= 0 && seconds < 1e9)) return 0;
    int64_t s = llround(seconds), min = s / 60, h = min / 60, d = h / 24;
    if (d > 0)
        return snprintf(text, room, " · %" PRId64 " d %" PRId64 " h left", d, h % 24);
    if (h > 0)
        return snprintf(text, room, " · %" PRId64 " h %" PRId64 " min left", h, min % 60);
    if (min > 0)
        return snprintf(text, room, " · %" PRId64 " min %" PRId64 " s left", min, s % 60);
    return snprintf(text, room, " · %" PRId64 " s left", s);
}

static void step_text(const sbni_progress *p, int64_t epoch, double loss, double now_s,
                      char *text)
{
    size_t room = TEXT_BYTES;
    int n = snprintf(text, room, "epoch %" PRId64, epoch);
    n += put_total(text + n, room - (size_t)n, p->epochs);
    n += snprintf(text + n, room - (size_t)n, " · step %" PRId64, p->step);
    n += put_total(text + n, room - (size_t)n, p->steps);
    n += snprintf(text + n, room - (size_t)n, " · loss %.4g", loss);
    const mark *from = &p->marks[p->oldest];
    double seconds = now_s - from->time_s;
    if (!(seconds > 0) || p->step <= from->step) return;
    n += snprintf(text + n, room - (size_t)n, " · ");
    n += put_grouped(text + n, room - (size_t)n,
                     (double)(p->images - from->images) / seconds);
    n += snprintf(text + n, room - (size_t)n, " img/s");
    if (p->step < p->steps)
        put_left(text + n, room - (size_t)n,
                 (double)(p->steps - p->step) * seconds / (double)(p->step - from->step));
}

sbn_status sbni_progress_create(sbn_progress_style style, int64_t first, int64_t steps,
                                int64_t epochs, sbni_progress **progress)
{
    *progress = NULL;
    sbni_progress *p = NULL;
    SBN_TRY(sbni_alloc(1, sizeof *p, "progress", &p));
    p->style = resolve(style);
    p->step = first;
    p->steps = steps;
    p->epochs = epochs;
    double now_s = sbni_clock_s();
    /* A terminal shows the first step at once, a log starts with a rate worth reading. */
    p->drawn_s = p->style == SBN_PROGRESS_TTY ? now_s - REDRAW_S : now_s;
    restart(p, now_s);
    *progress = p;
    return SBN_OK;
}

void sbni_progress_step(sbni_progress *p, int64_t step, int64_t epoch, double loss,
                        int64_t images)
{
    if (p->style == SBN_PROGRESS_NONE) return;
    double now_s = sbni_clock_s();
    p->step = step;
    p->images += images;
    remember(p, now_s);
    if (now_s - p->drawn_s >= (p->style == SBN_PROGRESS_TTY ? REDRAW_S : LINES_S)) {
        char text[TEXT_BYTES];
        step_text(p, epoch, loss, now_s, text);
        show(p, text, p->style == SBN_PROGRESS_LINES);
        p->drawn_s = now_s;
    }
}

void sbni_progress_eval(sbni_progress *p, int64_t epoch, int64_t step, double test_loss,
                        double test_accuracy)
{
    if (p->style == SBN_PROGRESS_NONE) return;
    char text[TEXT_BYTES];
    int n = snprintf(text, sizeof text, "epoch %" PRId64, epoch);
    n += put_total(text + n, sizeof text - (size_t)n, p->epochs);
    if (step > 0) {
        n += snprintf(text + n, sizeof text - (size_t)n, " · step %" PRId64, step);
        n += put_total(text + n, sizeof text - (size_t)n, p->steps);
    }
    snprintf(text + n, sizeof text - (size_t)n, ": test loss %.4g, test accuracy %.4g",
             test_loss, test_accuracy);
    show(p, text, true);
    /* The time of an evaluation is not training's rate. */
    restart(p, sbni_clock_s());
}

void sbni_progress_destroy(sbni_progress **progress)
{
    if (!progress || !*progress) return;
    if ((*progress)->dirty) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
    sbni_free(*progress);
    *progress = NULL;
}

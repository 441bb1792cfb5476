#define _GNU_SOURCE /* memfd_create */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cli/bench.h"
#include "study/gnuplot.h"
#include "train/file.h"
#include "train/runfile.h"

sbn_status sbni_bench_plot_check(const char *path, bool *missing)
{
    *missing = !sbni_gnuplot_found();
    if (*missing) return SBN_OK;
    sbni_replacement *picture;
    sbn_status status = sbni_replacement_begin(path, &picture);
    if (status != SBN_OK) return sbni_fail_in(status, "--plot");
    sbni_replacement_end(&picture);
    return SBN_OK;
}

/* Whether a point is the first of its series. */
static bool begins(const sbni_bench_point *points, int i)
{
    for (int k = 0; k < i; k++)
        if (!strcmp(points[k].series, points[i].series)) return false;
    return true;
}

static void print_data(FILE *gnuplot, const sbni_bench_point *points, int n)
{
    fprintf(gnuplot, "$copy << EOD\n");
    for (int i = 0; i < n; i++)
        fprintf(gnuplot, "%.9g %.9g\n", points[i].bytes / (1 << 20),
                points[i].copy * 1e-9);
    fprintf(gnuplot, "EOD\n");
    for (int i = 0; i < n; i++) {
        if (!begins(points, i)) continue;
        fprintf(gnuplot, "$s%d << EOD\n", i);
        for (int k = i; k < n; k++)
            if (!strcmp(points[k].series, points[i].series))
                fprintf(gnuplot, "%.9g %.9g\n", points[k].bytes / (1 << 20),
                        points[k].speed * 1e-9);
        fprintf(gnuplot, "EOD\n");
    }
}

static void widen(double range[2], double v)
{
    range[0] = fmin(range[0], v);
    range[1] = fmax(range[1], v);
}

static void print_script(FILE *gnuplot, const sbni_bench_point *points, int n)
{
    sbni_machine m;
    sbni_machine_get(&m);
    double x[2] = {HUGE_VAL, 0}, y[2] = {HUGE_VAL, 0};
    for (int i = 0; i < n; i++) {
        widen(x, points[i].bytes / (1 << 20));
        widen(y, points[i].speed * 1e-9);
        widen(y, points[i].copy * 1e-9);
    }
    char title[320];
    snprintf(title, sizeof title, "Passes of the layer against memcpy (%s)",
             m.cpu[0] ? m.cpu : "unknown CPU");
    fprintf(gnuplot, "set title ");
    sbni_gnuplot_quote(gnuplot, title);
    fprintf(gnuplot,
            "\nset border 3 lc rgb '#444444'\n"
            "set tics nomirror out textcolor rgb '#222222'\n"
            "set grid lc rgb '#dddddd' lw 1 lt 1\n"
            "set logscale xy\nset format xy '%%g'\n"
            "set xrange [%.9g:%.9g]\nset yrange [%.9g:%.9g]\n"
            "set ytics (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)\n"
            "set key outside right top Left reverse samplen 2\n"
            "set xlabel 'size of x, MiB'\n"
            "set ylabel 'GB/s, each tensor counted once'\n",
            x[0] / 1.5, x[1] * 1.5, y[0] / 1.3, y[1] * 1.3);
    print_data(gnuplot, points, n);
    /* cases of one size share a point of the roof */
    fprintf(gnuplot,
            "plot $copy smooth unique with lines lw 4 lc rgb '#444444' title 'memcpy'");
    /* blue and vermilion stay apart for every colour vision, full and open marks say it
     * again; their form is the layout's */
    static const int marks[2][6] = {{7, 5, 9, 13, 11, 15}, {6, 4, 8, 12, 10, 14}};
    for (int i = 0, series[2] = {0, 0}; i < n; i++) {
        if (!begins(points, i)) continue;
        bool backward = points[i].backward;
        fprintf(gnuplot, ", \\\n $s%d with points pt %d ps 1.5 lw 2.5 lc rgb '%s' title ",
                i, marks[backward][series[backward]++ % 6],
                backward ? "#D55E00" : "#0072B2");
        sbni_gnuplot_quote(gnuplot, points[i].series);
    }
    fprintf(gnuplot, "\n");
}

/* The script is a file without a name. */
sbn_status sbni_bench_plot(const char *path, const sbni_bench_point *points, int n)
{
    char script[64];
    int fd = memfd_create("plot", 0);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    SBN_CHECK(f, SBN_E_MEMORY, "--plot: no file in memory: %s", strerror(errno));
    print_script(f, points, n);
    snprintf(script, sizeof script, "/dev/fd/%d", fd);
    bool written = fflush(f) == 0 && !ferror(f);
    sbn_status status =
        written ? sbni_gnuplot_draw(script,
                                    "svg size 1080,600 noenhanced font 'Helvetica,20' "
                                    "background 'white'",
                                    path)
                : sbni_fail(SBN_E_MEMORY, "--plot: no memory");
    fclose(f);
    return status;
}

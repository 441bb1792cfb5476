#include "study/gnuplot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train/file.h"

bool sbni_gnuplot_found(void)
{
    return system("command -v gnuplot >/dev/null 2>&1") == 0;
}

void sbni_gnuplot_quote(FILE *f, const char *text)
{
    fputc('\'', f);
    for (; *text; text++) fputs(*text == '\'' ? "''" : (char[]){*text, 0}, f);
    fputc('\'', f);
}

/* A path as one word of the shell, and none that looks like an option. */
static void put_path(FILE *f, const char *path)
{
    fprintf(f, *path == '/' ? "'" : "'./");
    for (; *path; path++) fprintf(f, *path == '\'' ? "'\\''" : "%c", *path);
    fprintf(f, "'");
}

static sbn_status copy_all(FILE *gnuplot, sbni_replacement *picture)
{
    char block[4096];
    for (;;) {
        ssize_t n = read(fileno(gnuplot), block, sizeof block);
        if (n < 0 && errno == EINTR) continue;
        SBN_CHECK(n >= 0, SBN_E_IO, "cannot read from gnuplot: %s", strerror(errno));
        if (n == 0) return SBN_OK;
        SBN_TRY(sbni_replacement_write(picture, block, n));
    }
}

/* gnuplot does not say when a disk is full, so what it draws comes by a pipe. */
static sbn_status draw_to(const char *path, const char *command)
{
    FILE *gnuplot = NULL;
    sbni_replacement *picture = NULL;
    sbn_status status;
    SBN_GOTO(sbni_replacement_begin(path, &picture));
    gnuplot = popen(command, "r");
    status = gnuplot ? copy_all(gnuplot, picture)
                     : sbni_fail(SBN_E_IO, "cannot start gnuplot: %s", strerror(errno));
    if (gnuplot && pclose(gnuplot) != 0 && status == SBN_OK)
        status = sbni_fail(SBN_E_IO, "gnuplot could not draw %s", path);
    if (status == SBN_OK) status = sbni_replacement_commit(picture, NULL);
fail:
    sbni_replacement_end(&picture);
    return status;
}

sbn_status sbni_gnuplot_draw(const char *script, const char *terminal, const char *path)
{
    char *command = NULL;
    size_t bytes;
    FILE *f = open_memstream(&command, &bytes);
    SBN_CHECK(f, SBN_E_MEMORY, "%s: no memory", path);
    fprintf(f, "exec gnuplot -e \"set terminal %s\" ", terminal);
    put_path(f, script);
    fprintf(f, " </dev/null 2>/dev/null");
    sbn_status status = fclose(f) == 0 ? draw_to(path, command)
                                       : sbni_fail(SBN_E_MEMORY, "%s: no memory", path);
    free(command);
    return status;
}

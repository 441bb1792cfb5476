/*
 * replay CORPUS [MUTANTS [SEED [FIRST]]]: give a target every file of a folder, then
 * mutants of them, which are a function of the folder, the seed and their number. The
 * inputs run in a child, so that one that crashes or hangs can be named and kept.
 */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "fuzz.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/rng.h"

enum { MOST_FILES = 256, MOST_BYTES = 16384, MOST_EDITS = 4, PATIENCE_S = 30 };

typedef struct input {
    size_t n;
    uint8_t bytes[MOST_BYTES];
} input;

/* Shared with the child: what it works on. */
typedef struct work {
    char what[512];
    input now;
    bool done;
} work;

static input *corpus;
static char **names;
static int files;

/* Draws of one mutant. */
typedef struct dice {
    sbni_rng_key key;
    uint64_t mutant;
    uint32_t draw;
} dice;

static uint64_t roll(dice *d)
{
    return sbni_rng_u64(d->key, d->mutant, d->draw++);
}

static size_t below(dice *d, size_t n)
{
    return n ? (size_t)(roll(d) % n) : 0;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Make room for n bytes at a place; returns how many there is room for. */
static size_t open_gap(input *in, size_t at, size_t n)
{
    n = least(n, MOST_BYTES - in->n);
    memmove(in->bytes + at + n, in->bytes + at, in->n - at);
    in->n += n;
    return n;
}

static void cut(input *in, size_t at, size_t n)
{
    n = least(n, in->n - at);
    memmove(in->bytes + at, in->bytes + at + n, in->n - at - n);
    in->n -= n;
}

static void insert(input *in, dice *d)
{
    size_t at = below(d, in->n + 1), n = open_gap(in, at, 1 + below(d, 24));
    uint64_t value = roll(d);
    for (size_t i = 0; i < n; i++)
        in->bytes[at + i] = (uint8_t)(value & 1 ? value >> 8 : value >> 8 * (i % 8));
}

/* A piece of a file of the corpus, over what is there or between. */
static void splice(input *in, dice *d)
{
    const input *from = &corpus[below(d, (size_t)files)];
    size_t start = below(d, from->n), at = below(d, in->n + 1);
    size_t n = least(1 + below(d, 64), from->n - start);
    n = roll(d) & 1 ? open_gap(in, at, n) : least(n, in->n - at);
    memcpy(in->bytes + at, from->bytes + start, n);
}

/* Numbers at which readers break. */
static const uint64_t numbers[] = {
    0,
    1,
    2,
    255,
    256,
    65535,
    65536,
    65537,
    0x7fffffff,
    0x80000000,
    0xffffffff,
    0x100000000,
    0x2000000000000000,
    0x7fffffffffffffff,
    0x8000000000000000,
    0xffffffffffffffff,
};
enum { NUMBERS = sizeof numbers / sizeof *numbers };

static void edit_word(input *in, dice *d)
{
    size_t width = (size_t)1 << below(d, 4), at = below(d, in->n);
    uint64_t value = numbers[below(d, NUMBERS)] + below(d, 3) - 1;
    bool big = roll(d) & 1;
    for (size_t i = 0; i < width && at + i < in->n; i++)
        in->bytes[at + i] = (uint8_t)(value >> 8 * (big ? width - 1 - i : i));
}

static bool is_digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}

/* The first decimal number behind some place becomes another, often a near one. */
static void edit_decimal(input *in, dice *d)
{
    size_t at = below(d, in->n), n = 0;
    while (at < in->n && !is_digit(in->bytes[at])) at++;
    while (at + n < in->n && is_digit(in->bytes[at + n])) n++;
    if (n == 0) return;
    char text[32] = "";
    memcpy(text, in->bytes + at, least(n, 18));
    uint64_t value = strtoull(text, NULL, 10), near = value + below(d, 5) - 2;
    if (roll(d) & 1) near = numbers[below(d, NUMBERS)];
    int length = snprintf(text, sizeof text, "%llu", (unsigned long long)near);
    cut(in, at, n);
    memcpy(in->bytes + at, text, open_gap(in, at, (size_t)length));
}

static void edit(input *in, dice *d)
{
    uint64_t kind = roll(d) % 8;
    if (in->n == 0 || kind == 0)
        insert(in, d);
    else if (kind == 1)
        in->bytes[below(d, in->n)] ^= (uint8_t)(1 << below(d, 8));
    else if (kind == 2)
        in->bytes[below(d, in->n)] = (uint8_t)roll(d);
    else if (kind == 3)
        cut(in, below(d, in->n), 1 + below(d, 24));
    else if (kind == 4)
        splice(in, d);
    else if (kind == 5)
        edit_word(in, d);
    else if (kind == 6 || roll(d) % 4)
        edit_decimal(in, d);
    else
        in->n = below(d, in->n);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void read_corpus(const char *path)
{
    DIR *folder = opendir(path);
    FUZZ_CHECK(folder, "cannot open %s", path);
    names = calloc(MOST_FILES, sizeof *names);
    corpus = calloc(MOST_FILES, sizeof *corpus);
    FUZZ_CHECK(names && corpus, "no memory");
    for (const struct dirent *entry; (entry = readdir(folder));) {
        if (entry->d_name[0] == '.') continue;
        FUZZ_CHECK(files < MOST_FILES, "more than %d files in %s", MOST_FILES, path);
        names[files++] = strdup(entry->d_name);
    }
    closedir(folder);
    FUZZ_CHECK(files, "no files in %s", path);
    /* the order of a folder is not that of another machine */
    qsort(names, (size_t)files, sizeof *names, by_name);
    for (int i = 0; i < files; i++) {
        char file[1024];
        snprintf(file, sizeof file, "%s/%s", path, names[i]);
        uint8_t *bytes = fuzz_read(file, &corpus[i].n);
        FUZZ_CHECK(corpus[i].n <= MOST_BYTES, "%s has more than %d bytes", file,
                   MOST_BYTES);
        memcpy(corpus[i].bytes, bytes, corpus[i].n);
        free(bytes);
    }
}

static void run(const input *in)
{
    /* to the byte, so that a sanitizer sees what reads past the end */
    uint8_t *bytes = malloc(in->n ? in->n : 1);
    FUZZ_CHECK(bytes, "no memory");
    memcpy(bytes, in->bytes, in->n);
    alarm(PATIENCE_S);
    LLVMFuzzerTestOneInput(bytes, in->n);
    alarm(0);
    free(bytes);
}

/* A reader that refuses everything, or nothing, would keep every other promise. */
static void check_name(const char *name, bool accepted)
{
    FUZZ_CHECK(accepted || strncmp(name, "ok_", 3) != 0, "refused: %s", sbn_last_error());
    FUZZ_CHECK(!accepted || strncmp(name, "bad_", 4) != 0, "accepted");
}

static void child(work *w, uint64_t mutants, uint64_t seed, uint64_t first)
{
    for (int i = 0; i < files; i++) {
        snprintf(w->what, sizeof w->what, "file %s", names[i]);
        w->now = corpus[i];
        uint64_t before = fuzz_accepted;
        run(&w->now);
        check_name(names[i], fuzz_accepted > before);
    }
    uint64_t accepted = fuzz_accepted;
    for (uint64_t m = first; m < first + mutants; m++) {
        dice d = {.key = {.seed = seed, .purpose = SBNI_RNG_TEST}, .mutant = m};
        size_t base = below(&d, (size_t)files);
        snprintf(w->what, sizeof w->what, "mutant %llu (of %s)", (unsigned long long)m,
                 names[base]);
        w->now.n = corpus[base].n;
        memcpy(w->now.bytes, corpus[base].bytes, corpus[base].n);
        for (size_t edits = 1 + below(&d, MOST_EDITS); edits > 0; edits--)
            edit(&w->now, &d);
        if (roll(&d) & 1) fuzz_mend(w->now.bytes, w->now.n);
        run(&w->now);
    }
    w->done = true;
    printf("%d files, %llu of them accepted; %llu mutants, %llu accepted\n", files,
           (unsigned long long)accepted, (unsigned long long)mutants,
           (unsigned long long)(fuzz_accepted - accepted));
}

int main(int argc, char **argv)
{
    FUZZ_CHECK(argc > 1 && argc <= 5, "usage: replay CORPUS [MUTANTS [SEED [FIRST]]]");
    uint64_t number[3] = {0, 1, 0};
    for (int i = 2; i < argc; i++) number[i - 2] = strtoull(argv[i], NULL, 10);
    work *w =
        mmap(NULL, sizeof *w, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    FUZZ_CHECK(w != MAP_FAILED, "no memory");
    read_corpus(argv[1]);
    printf("seed %llu\n", (unsigned long long)number[1]);
    fuzz_folder();
    fflush(stdout);
    pid_t pid = fork();
    FUZZ_CHECK(pid >= 0, "cannot fork");
    if (pid == 0) {
        child(w, number[0], number[1], number[2]);
        for (int i = 0; i < files; i++) free(names[i]);
        free(names);
        free(corpus);
        return 0;
    }
    int code = 0;
    waitpid(pid, &code, 0);
    fuzz_folder_remove();
    if (code != 0) {
        const char *kept = "fuzz-failure";
        if (!w->done) fuzz_write(kept, w->now.bytes, w->now.n);
        fprintf(stderr, "seed %llu, %s: failed (%s %d); input kept in %s\n",
                (unsigned long long)number[1], w->done ? "at the end" : w->what,
                WIFSIGNALED(code) ? "signal" : "exit code",
                WIFSIGNALED(code) ? WTERMSIG(code) : WEXITSTATUS(code),
                w->done ? "no file" : kept);
        return 1;
    }
    return 0;
}

#include "train/metrics.h"
#include "support/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <jansson.h>
#include <locale.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/rng.h"
#include "core/text.h"

static const char *path_of(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", test_folder(), name);
    return path;
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

static void expect_text(const char *path, const char *want)
{
    static char got[1 << 20];
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    got[fread(got, 1, sizeof got - 1, f)] = 0;
    fclose(f);
    assert_string_equal(got, want);
}

static void lines_are_as_documented(void **state)
{
    (void)state;
    const char *path = path_of("lines.jsonl");
    write_text(path, "an earlier file\n");
    sbni_metrics *m = NULL;
    OK(sbni_metrics_open(path, -1, &m));
    expect_text(path, "");
    OK(sbni_metrics_step(m, 1, 1, 2.3, 0.05, NULL));
    const sbni_score test = {0.4, 0.85}, train = {0.25, NAN};
    OK(sbni_metrics_eval(m, 938, 1, &test, NULL));
    OK(sbni_metrics_eval(m, 938, 1, &test, &train));
    OK(sbni_metrics_precise(m, 938, 60000, &test, NULL));
    OK(sbni_metrics_precise(m, 938, 60000, &test, &train));
    OK(sbni_metrics_activations(m, 20, "dense3_bn", 7, (double[3]){-0.5, 0.25, NAN}));
    OK(sbni_metrics_statistics(m, 938, "conv2_bn", (sbni_noise){0.125, 0.25}));
    OK(sbni_metrics_noise_scale(m, 20, &(sbni_noise_scale){16, 64, 0.5, 40, 80}));
    OK(sbni_metrics_done(m, 4690, 12.5, 24000, NAN, 0, true));
    OK(sbni_metrics_done(m, 4690, 12.5, 24000, 0.5, 0.1, true));
    OK(sbni_metrics_done(m, 4690, 12.5, 24000, 0.5, 0.75, false));
    OK(sbni_metrics_step(m, INT64_MAX, 2, -INFINITY, NAN, NULL));
    OK(sbni_metrics_step(m, 7, 1, 0.5, 0.1, &(sbn_norm_clipped){1.5, 0.25, 0.125, 1}));
    expect_text(path, "");
    OK(sbni_metrics_flush(m, 1));
    const char *want =
        "{\"kind\":\"step\",\"step\":1,\"epoch\":1,\"loss\":2.3,\"lr\":0.05}\n"
        "{\"kind\":\"eval\",\"epoch\":1,\"step\":938,\"test_loss\":0.4,"
        "\"test_accuracy\":0.85}\n"
        "{\"kind\":\"eval\",\"epoch\":1,\"step\":938,\"test_loss\":0.4,"
        "\"test_accuracy\":0.85,\"train_loss\":0.25,\"train_accuracy\":null,"
        "\"nonfinite\":true}\n"
        "{\"kind\":\"precise\",\"step\":938,\"samples\":60000,\"test_loss\":0.4,"
        "\"test_accuracy\":0.85}\n"
        "{\"kind\":\"precise\",\"step\":938,\"samples\":60000,\"test_loss\":0.4,"
        "\"test_accuracy\":0.85,\"train_loss\":0.25,\"train_accuracy\":null,"
        "\"nonfinite\":true}\n"
        "{\"kind\":\"activations\",\"step\":20,\"layer\":\"dense3_bn\",\"unit\":7,"
        "\"p15\":-0.5,\"p50\":0.25,\"p85\":null,\"nonfinite\":true}\n"
        "{\"kind\":\"statistics\",\"step\":938,\"layer\":\"conv2_bn\","
        "\"mean_noise\":0.125,\"var_noise\":0.25}\n"
        "{\"kind\":\"noise_scale\",\"step\":20,\"small\":16,\"big\":64,\"grad_sq\":0.5,"
        "\"trace\":40,\"noise_scale\":80}\n"
        "{\"kind\":\"done\",\"steps\":4690,\"seconds\":12.5,\"images_per_s\":24000,"
        "\"test_accuracy\":null,\"nonfinite\":true}\n"
        "{\"kind\":\"done\",\"steps\":4690,\"seconds\":12.5,\"images_per_s\":24000,"
        "\"test_accuracy\":0.5,\"target\":0.1,\"reached\":true}\n"
        "{\"kind\":\"done\",\"steps\":4690,\"seconds\":12.5,\"images_per_s\":24000,"
        "\"test_accuracy\":0.5,\"target\":0.75,\"reached\":false}\n"
        "{\"kind\":\"step\",\"step\":9223372036854775807,\"epoch\":2,\"loss\":null,"
        "\"lr\":null,\"nonfinite\":true}\n"
        "{\"kind\":\"step\",\"step\":7,\"epoch\":1,\"loss\":0.5,\"lr\":0.1,"
        "\"r_max\":1.5,\"d_max\":0.25,\"r_clipped\":0.125,\"d_clipped\":1}\n";
    expect_text(path, want);
    OK(sbni_metrics_close(&m));
    assert_null(m);
    OK(sbni_metrics_close(&m));
    OK(sbni_metrics_close(NULL));
    expect_text(path, want);
}

/* Every line of the file must be JSON whose loss is bitwise values[i]. */
static void expect_losses(const char *path, const double *values, int n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    for (int i = 0; i < n; i++) {
        json_t *record =
            json_loadf(f, JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(record);
        double got = json_number_value(json_object_get(record, "loss"));
        /* "-0" is an integer in JSON and has no sign there. */
        if (values[i] == 0)
            assert_true(got == 0);
        else
            assert_memory_equal(&got, &values[i], sizeof got);
        json_decref(record);
    }
    fclose(f);
}

static void doubles_read_back(void **state)
{
    (void)state;
    enum { N = 5000 };
    static double values[N] = {
        0.0,         -0.0,    5e-324, -5e-324,   DBL_MIN,           DBL_MAX,
        0.1,         1.0 / 3, 1e15,   1e16,      9007199254740993., 1e300,
        DBL_EPSILON, 2.3,     4.35,   0.1 + 0.2, -DBL_MAX,          123456789012345678.,
    };
    sbni_rng_key key = {.seed = 5, .purpose = SBNI_RNG_TEST};
    for (int i = 18; i < N; i++) {
        uint64_t bits = sbni_rng_u64(key, (uint64_t)i, 0);
        if (i % 4 == 0) bits &= UINT64_C(0x800fffffffffffff); /* denormal */
        memcpy(&values[i], &bits, sizeof bits);
        if (!isfinite(values[i])) values[i] = i;
    }
    const char *path = path_of("doubles.jsonl");
    sbni_metrics *m = NULL;
    OK(sbni_metrics_open(path, -1, &m));
    for (int i = 0; i < N; i++) OK(sbni_metrics_step(m, i, 1, values[i], 0.1, NULL));
    OK(sbni_metrics_close(&m));
    expect_losses(path, values, N);
}

static void numbers_are_shortest(void **state)
{
    (void)state;
    const struct {
        double value;
        const char *text;
    } cases[] = {
        {0.1, "0.1"},
        {0.1 + 0.2, "0.30000000000000004"},
        {1.0 / 3, "0.3333333333333333"},
        {1e22, "1e+22"},
        {5e-324, "4.94065645841247e-324"},
        {DBL_MAX, "1.7976931348623157e+308"},
    };
    const char *path = path_of("shortest.jsonl");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sbni_metrics *m = NULL;
        OK(sbni_metrics_open(path, -1, &m));
        OK(sbni_metrics_step(m, 1, 1, cases[i].value, 1, NULL));
        OK(sbni_metrics_close(&m));
        char want[256];
        snprintf(want, sizeof want,
                 "{\"kind\":\"step\",\"step\":1,\"epoch\":1,\"loss\":%s,\"lr\":1}\n",
                 cases[i].text);
        expect_text(path, want);
    }
}

static void locale_does_not_matter(void **state)
{
    (void)state;
    /* a locale of our own, so that none has to be installed */
    char make[512];
    snprintf(make, sizeof make, "localedef -i de_DE -f UTF-8 '%s/de_DE.UTF-8' >/dev/null",
             test_folder());
    if (access("/usr/share/i18n/locales/de_DE", R_OK) != 0) skip(); /* package locales */
    assert_int_equal(system(make), 0);
    setenv("LOCPATH", test_folder(), 1);
    assert_non_null(setlocale(LC_ALL, "de_DE.UTF-8"));
    char comma[8];
    snprintf(comma, sizeof comma, "%.1f", 0.5);
    const char *path = path_of("locale.jsonl");
    sbni_metrics *m = NULL;
    OK(sbni_metrics_open(path, -1, &m));
    OK(sbni_metrics_step(m, 1, 1, 0.25, 0.1 + 0.2, NULL));
    OK(sbni_metrics_close(&m));
    char after[8], real[32], *end;
    snprintf(after, sizeof after, "%.1f", 0.5);
    sbni_text_real(0.001, real, sizeof real);
    double read = sbni_text_to_real("0.001", &end);
    setlocale(LC_ALL, "C");
    assert_string_equal(real, "0.001");
    assert_true(read == 0.001 && *end == 0);
    assert_string_equal(comma, "0,5");
    assert_string_equal(after, "0,5");
    expect_text(path, "{\"kind\":\"step\",\"step\":1,\"epoch\":1,\"loss\":0.25,"
                      "\"lr\":0.30000000000000004}\n");
}

#define STEP(n) "{\"kind\":\"step\",\"step\":" #n ",\"epoch\":1,\"loss\":1,\"lr\":1}\n"
#define EVAL(n) "{\"kind\":\"eval\",\"epoch\":1,\"step\":" #n ",\"test_loss\":1}\n"
#define DONE "{\"kind\":\"done\",\"steps\":2}\n"

static void resume_keeps_what_came_before(void **state)
{
    (void)state;
    const struct {
        const char *before;
        int64_t step;
        const char *after;
    } cases[] = {
        {"", 3, ""},
        {STEP(1) STEP(2) EVAL(2), 2, STEP(1) STEP(2) EVAL(2)},
        {STEP(1) STEP(2) EVAL(2) DONE, 2, STEP(1) STEP(2) EVAL(2)},
        {STEP(1) EVAL(1) STEP(2) EVAL(2), 1, STEP(1) EVAL(1)},
        {STEP(1) STEP(2), 0, ""},
        {STEP(1) DONE STEP(2) DONE, 2, STEP(1) STEP(2)},
        /* bytes of kept lines stay, whoever wrote them */
        {"{ \"step\" : 1,\t\"kind\":\"step\", \"note\":\"\xc3\xa9\" }\n" STEP(2), 1,
         "{ \"step\" : 1,\t\"kind\":\"step\", \"note\":\"\xc3\xa9\" }\n"},
        /* a last line without its end is torn even where it could be read */
        {STEP(1) "{\"kind\":\"step\",\"step\":2}", 2, STEP(1)},
        {STEP(1) "{\"kind\":\"st", 2, STEP(1)},
        {"{\"ki", 2, ""},
        {STEP(1) STEP(5) "{\"kind\":\"st\n" STEP(6), 2, STEP(1)},
        {STEP(1) "{\"kind\":\"st\n", 2, STEP(1)},
    };
    const char *path = path_of("resume.jsonl");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_text(path, cases[i].before);
        sbni_metrics *m = NULL;
        OK(sbni_metrics_open(path, cases[i].step, &m));
        expect_text(path, cases[i].after);
        OK(sbni_metrics_step(m, 7, 1, 1, 1, NULL));
        OK(sbni_metrics_close(&m));
        char want[1024];
        snprintf(want, sizeof want, "%s" STEP(7), cases[i].after);
        expect_text(path, want);
    }
}

/* A kill may tear the file at any byte. */
static void resume_after_every_tear(void **state)
{
    (void)state;
    const char *whole = STEP(1) STEP(2) EVAL(2) STEP(3), *path = path_of("tear.jsonl");
    size_t kept_bytes = strlen(STEP(1) STEP(2) EVAL(2));
    for (size_t cut = 0; cut <= strlen(whole); cut++) {
        char text[512], want[512];
        snprintf(text, sizeof text, "%.*s", (int)cut, whole);
        write_text(path, text);
        sbni_metrics *m = NULL;
        OK(sbni_metrics_open(path, 2, &m));
        OK(sbni_metrics_close(&m));
        size_t lines = 0;
        for (size_t i = 0; i < cut && i < kept_bytes; i++)
            if (whole[i] == '\n') lines = i + 1;
        snprintf(want, sizeof want, "%.*s", (int)lines, whole);
        expect_text(path, want);
    }
}

static void resume_refuses_damage(void **state)
{
    (void)state;
    const char *path = path_of("damage.jsonl"), *text = STEP(1) "what\n" STEP(2) STEP(3);
    write_text(path, text);
    sbni_metrics *m = NULL;
    FAILS(SBN_E_DATA, sbni_metrics_open(path, 2, &m));
    assert_null(m);
    assert_non_null(strstr(sbn_last_error(), "damage.jsonl: line 2"));
    expect_text(path, text);
}

static void resume_without_a_file(void **state)
{
    (void)state;
    const char *path = path_of("fresh.jsonl");
    sbni_metrics *m = NULL;
    OK(sbni_metrics_open(path, 10, &m));
    OK(sbni_metrics_step(m, 7, 1, 1, 1, NULL));
    OK(sbni_metrics_close(&m));
    expect_text(path, STEP(7));
}

static void refusals_are_errors(void **state)
{
    (void)state;
    sbni_metrics *m = NULL;
    FAILS(SBN_E_IO, sbni_metrics_open(path_of("missing/m.jsonl"), -1, &m));
    assert_non_null(strstr(sbn_last_error(), "missing/m.jsonl"));
    assert_non_null(strstr(sbn_last_error(), strerror(ENOENT)));
    FAILS(SBN_E_IO, sbni_metrics_open(path_of("missing/m.jsonl"), 3, &m));
    FAILS(SBN_E_IO, sbni_metrics_open(test_folder(), -1, &m));
    FAILS(SBN_E_IO, sbni_metrics_open(test_folder(), 3, &m));
    write_text(path_of("plain"), "x");
    FAILS(SBN_E_IO, sbni_metrics_open(path_of("plain/m.jsonl"), 3, &m));
    assert_non_null(strstr(sbn_last_error(), strerror(ENOTDIR)));
    assert_null(m);
}

static void full_disk(void **state)
{
    (void)state;
    for (int64_t resume_step = -1; resume_step < 2; resume_step++) {
        sbni_metrics *m = NULL;
        OK(sbni_metrics_open("/dev/full", resume_step, &m));
        OK(sbni_metrics_step(m, 1, 1, 1, 1, NULL));
        FAILS(SBN_E_IO, sbni_metrics_flush(m, 0));
        assert_non_null(strstr(sbn_last_error(), "/dev/full"));
        assert_non_null(strstr(sbn_last_error(), strerror(ENOSPC)));
        /* without a flush of the caller's the full buffer says so */
        sbn_status status = SBN_OK;
        for (int i = 0; i < 10000 && status == SBN_OK; i++)
            status = sbni_metrics_step(m, i, 1, 1, 1, NULL);
        assert_int_equal(status, SBN_E_IO);
        FAILS(SBN_E_IO, sbni_metrics_close(&m));
        assert_null(m);
    }
}

/* The limit lets a write end inside a line; with room again the rest follows. */
static void short_write_goes_on_later(void **state)
{
    (void)state;
    const char *path = path_of("short.jsonl");
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 20;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    sbni_metrics *m = NULL;
    OK(sbni_metrics_open(path, -1, &m));
    OK(sbni_metrics_step(m, 7, 1, 1, 1, NULL));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    sbn_status status = sbni_metrics_flush(m, 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(status, SBN_E_IO);
    struct stat s;
    assert_int_equal(stat(path, &s), 0);
    assert_int_equal(s.st_size, 20);
    OK(sbni_metrics_close(&m));
    expect_text(path, STEP(7));
}

static void broken_pipe(void **state)
{
    (void)state;
    const char *path = path_of("pipe");
    assert_int_equal(mkfifo(path, 0600), 0);
    void (*handler)(int) = signal(SIGPIPE, SIG_IGN);
    int reader = open(path, O_RDONLY | O_NONBLOCK);
    sbni_metrics *m = NULL;
    OK(sbni_metrics_open(path, 1, &m));
    OK(sbni_metrics_step(m, 7, 1, 1, 1, NULL));
    OK(sbni_metrics_flush(m, 1));
    char got[128] = "";
    assert_int_equal(read(reader, got, sizeof got), strlen(STEP(7)));
    close(reader);
    OK(sbni_metrics_step(m, 8, 1, 1, 1, NULL));
    sbn_status status = sbni_metrics_flush(m, 0);
    assert_int_equal(status, SBN_E_IO);
    assert_non_null(strstr(sbn_last_error(), strerror(EPIPE)));
    FAILS(SBN_E_IO, sbni_metrics_close(&m));
    signal(SIGPIPE, handler);
    assert_string_equal(got, STEP(7));
}

static void many_lines_pass_the_buffer(void **state)
{
    (void)state;
    const char *path = path_of("many.jsonl");
    enum { N = 4000 };
    static double values[N];
    for (int half = 0; half < 2; half++) {
        sbni_metrics *m = NULL;
        OK(sbni_metrics_open(path, half ? N / 2 - 1 : -1, &m));
        /* the first half runs past the step that the second resumes after */
        for (int i = half ? N / 2 : 0; i < (half ? N : N / 2 + 300); i++) {
            values[i] = i / 7.0;
            OK(sbni_metrics_step(m, i, 1, values[i], 0.1, NULL));
        }
        OK(sbni_metrics_close(&m));
    }
    expect_losses(path, values, N);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(lines_are_as_documented),
    cmocka_unit_test(doubles_read_back),
    cmocka_unit_test(numbers_are_shortest),
    cmocka_unit_test(locale_does_not_matter),
    cmocka_unit_test(resume_keeps_what_came_before),
    cmocka_unit_test(resume_after_every_tear),
    cmocka_unit_test(resume_refuses_damage),
    cmocka_unit_test(resume_without_a_file),
    cmocka_unit_test(refusals_are_errors),
    cmocka_unit_test(full_disk),
    cmocka_unit_test(short_write_goes_on_later),
    cmocka_unit_test(broken_pipe),
    cmocka_unit_test(many_lines_pass_the_buffer),
};
TEST_MAIN(tests)

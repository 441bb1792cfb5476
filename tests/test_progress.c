#include "train/progress.h"
#include "support/harness.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"

/* This clock stands before the library's when the program is linked, so that time is
 * what a case says. */
static double now_s;

double sbni_clock_s(void)
{
    return now_s;
}

static int saved = -1;
static char shown[1 << 16];

/* stderr goes to a file, which is no terminal, until what_was_shown. */
static void catch_output(void)
{
    char path[512];
    snprintf(path, sizeof path, "%s/stderr", test_folder());
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    saved = dup(STDERR_FILENO);
    dup2(fd, STDERR_FILENO);
    close(fd);
    unsetenv("COLUMNS");
    now_s = 1000;
}

static const char *what_was_shown(void)
{
    off_t bytes = lseek(STDERR_FILENO, 0, SEEK_END);
    ssize_t got = pread(STDERR_FILENO, shown, sizeof shown - 1, 0);
    shown[got < 0 ? 0 : got] = 0;
    dup2(saved, STDERR_FILENO);
    close(saved);
    assert_true(got == bytes);
    return shown;
}

static int count(const char *text, const char *what)
{
    int n = 0;
    for (; (text = strstr(text, what)); text += strlen(what)) n++;
    return n;
}

static void lines_every_ten_seconds(void **state)
{
    (void)state;
    sbni_progress *p = NULL;
    catch_output();
    OK(sbni_progress_create(SBN_PROGRESS_LINES, 0, 120, 2, &p));
    for (int step = 1; step <= 60; step++) {
        now_s += 0.5;
        sbni_progress_step(p, step, 1, 0.43116, 12050);
    }
    sbni_progress_eval(p, 1, 0, 0.45, 0.842);
    sbni_progress_eval(p, 1, 60, 0.45, 0.842);
    sbni_progress_destroy(&p);
    assert_null(p);
    assert_string_equal(
        what_was_shown(),
        "epoch 1/2 · step 20/120 · loss 0.4312 · 24,100 img/s · 50 s left\n"
        "epoch 1/2 · step 40/120 · loss 0.4312 · 24,100 img/s · 40 s left\n"
        "epoch 1/2 · step 60/120 · loss 0.4312 · 24,100 img/s · 30 s left\n"
        "epoch 1/2: test loss 0.45, test accuracy 0.842\n"
        "epoch 1/2 · step 60/120: test loss 0.45, test accuracy 0.842\n");
}

static void terminal_redraws_one_line(void **state)
{
    (void)state;
    sbni_progress *p = NULL;
    catch_output();
    OK(sbni_progress_create(SBN_PROGRESS_TTY, 0, 3, 1, &p));
    now_s += 1;
    sbni_progress_step(p, 1, 1, 2.5, 64);
    now_s += 1;
    sbni_progress_step(p, 2, 1, 1.25, 64);
    sbni_progress_eval(p, 1, 0, 0.45, 0.842);
    now_s += 1;
    sbni_progress_step(p, 3, 1, 1, 32);
    sbni_progress_destroy(&p);
    assert_string_equal(what_was_shown(),
                        "\repoch 1/1 · step 1/3 · loss 2.5 · 64 img/s · 2 s left\033[K"
                        "\repoch 1/1 · step 2/3 · loss 1.25 · 64 img/s · 1 s left\033[K"
                        "\repoch 1/1: test loss 0.45, test accuracy 0.842\033[K\n"
                        "\repoch 1/1 · step 3/3 · loss 1 · 32 img/s\033[K"
                        "\r\033[K");
}

static void terminal_redraws_ten_times_a_second(void **state)
{
    (void)state;
    sbni_progress *p = NULL;
    catch_output();
    OK(sbni_progress_create(SBN_PROGRESS_TTY, 0, 10000, 1, &p));
    for (int step = 1; step <= 10000; step++) {
        now_s += 1.0 / 4096;
        sbni_progress_step(p, step, 1, 1, 1);
    }
    sbni_progress_destroy(&p);
    int drawn = count(what_was_shown(), "\repoch");
    assert_in_range(drawn, 20, 10000 / 409 + 1);
    assert_int_equal(count(shown, "\n"), 0);
}

/* Neither a mode of the environment nor a last line left over: escapes only ever go to a
 * terminal. */
static void lines_have_no_escapes(void **state)
{
    (void)state;
    unsetenv("SYNCBN_TTY");
    const sbn_progress_style styles[] = {SBN_PROGRESS_LINES, SBN_PROGRESS_AUTO};
    for (int i = 0; i < 2; i++) {
        sbni_progress *p = NULL;
        catch_output();
        OK(sbni_progress_create(styles[i], 0, 100, 1, &p));
        for (int step = 1; step <= 100; step++) {
            now_s += 1;
            sbni_progress_step(p, step, 1, NAN, 1);
            if (step % 30 == 0) sbni_progress_eval(p, 1, 0, INFINITY, 0);
        }
        sbni_progress_destroy(&p);
        assert_null(strpbrk(what_was_shown(), "\r\033"));
        assert_int_equal(count(shown, "\n"), 13);
        assert_int_equal(count(shown, "loss nan"), 10);
    }
}

static void told_that_it_is_a_terminal(void **state)
{
    (void)state;
    const struct {
        const char *told;
        int escapes;
    } cases[] = {{"1", 1}, {"0", 0}, {"", 0}};
    for (int i = 0; i < 3; i++) {
        sbni_progress *p = NULL;
        setenv("SYNCBN_TTY", cases[i].told, 1);
        catch_output();
        OK(sbni_progress_create(SBN_PROGRESS_AUTO, 0, 1, 1, &p));
        sbni_progress_eval(p, 1, 0, 1, 1);
        sbni_progress_destroy(&p);
        assert_int_equal(count(what_was_shown(), "\033[K"), cases[i].escapes);
    }
    unsetenv("SYNCBN_TTY");
}

static void none_is_silent(void **state)
{
    (void)state;
    sbni_progress *p = NULL;
    catch_output();
    OK(sbni_progress_create(SBN_PROGRESS_NONE, 0, 10, 1, &p));
    now_s += 100;
    sbni_progress_step(p, 1, 1, 1, 1);
    sbni_progress_eval(p, 1, 0, 1, 1);
    sbni_progress_destroy(&p);
    sbni_progress_destroy(&p);
    sbni_progress_destroy(NULL);
    assert_string_equal(what_was_shown(), "");
}

static void unknown_totals_are_left_out(void **state)
{
    (void)state;
    sbni_progress *p = NULL;
    catch_output();
    OK(sbni_progress_create(SBN_PROGRESS_LINES, 0, 0, 0, &p));
    now_s += 10;
    sbni_progress_step(p, 10, 1, 1, 100);
    sbni_progress_eval(p, 1, 10, 1, 1);
    sbni_progress_destroy(&p);
    OK(sbni_progress_create(SBN_PROGRESS_LINES, 0, 200, 0, &p));
    now_s += 10;
    sbni_progress_step(p, 10, 1, 1, 100);
    sbni_progress_destroy(&p);
    assert_string_equal(what_was_shown(),
                        "epoch 1 · step 10 · loss 1 · 10 img/s\n"
                        "epoch 1 · step 10: test loss 1, test accuracy 1\n"
                        "epoch 1 · step 10/200 · loss 1 · 10 img/s · 3 min 10 s left\n");
}

/* Steps done before a resume are neither in the rate nor in the time left. */
static void resumed_run(void **state)
{
    (void)state;
    sbni_progress *p = NULL;
    catch_output();
    OK(sbni_progress_create(SBN_PROGRESS_LINES, 4000, 40000, 5, &p));
    now_s += 10;
    sbni_progress_step(p, 4001, 3, 1, 12345678);
    sbni_progress_destroy(&p);
    assert_string_equal(what_was_shown(), "epoch 3/5 · step 4001/40000 · loss 1 · "
                                          "1,234,568 img/s · 4 d 3 h left\n");
}

/* A change of speed is the whole truth after the window has passed it. */
static void rate_follows_the_last_seconds(void **state)
{
    (void)state;
    sbni_progress *p = NULL;
    catch_output();
    OK(sbni_progress_create(SBN_PROGRESS_LINES, 0, 100000, 1, &p));
    for (int step = 1; step <= 1000; step++) {
        now_s += 1.0 / 64;
        sbni_progress_step(p, step, 1, 1, step <= 360 ? 1 : 100);
    }
    now_s += 40; /* one step longer than the window */
    sbni_progress_step(p, 1001, 1, 1, 400);
    now_s += 40;
    sbni_progress_step(p, 1002, 1, 1, 800);
    sbni_progress_destroy(&p);
    what_was_shown();
    assert_int_equal(count(shown, "\n"), 3);
    assert_non_null(
        strstr(shown, "step 1002/100000 · loss 1 · 20 img/s · 45 d 19 h left"));
}

/* A clock that stands still gives no rate rather than a division by zero. */
static void no_time_no_rate(void **state)
{
    (void)state;
    sbni_progress *p = NULL;
    catch_output();
    OK(sbni_progress_create(SBN_PROGRESS_TTY, 0, 5, 1, &p));
    sbni_progress_step(p, 1, 1, 1, 1);
    sbni_progress_destroy(&p);
    assert_string_equal(what_was_shown(),
                        "\repoch 1/1 · step 1/5 · loss 1\033[K\r\033[K");
}

static void line_ends_at_the_margin(void **state)
{
    (void)state;
    sbni_progress *p = NULL;
    catch_output();
    setenv("COLUMNS", "13", 1);
    OK(sbni_progress_create(SBN_PROGRESS_TTY, 0, 5, 1, &p));
    sbni_progress_step(p, 1, 1, 1, 1);
    unsetenv("COLUMNS");
    sbni_progress_destroy(&p);
    assert_string_equal(what_was_shown(), "\repoch 1/1 · \033[K\r\033[K");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(lines_every_ten_seconds),
    cmocka_unit_test(terminal_redraws_one_line),
    cmocka_unit_test(terminal_redraws_ten_times_a_second),
    cmocka_unit_test(lines_have_no_escapes),
    cmocka_unit_test(told_that_it_is_a_terminal),
    cmocka_unit_test(none_is_silent),
    cmocka_unit_test(unknown_totals_are_left_out),
    cmocka_unit_test(resumed_run),
    cmocka_unit_test(rate_follows_the_last_seconds),
    cmocka_unit_test(no_time_no_rate),
    cmocka_unit_test(line_ends_at_the_margin),
};
TEST_MAIN(tests)

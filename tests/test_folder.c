#include "train/folder.h"
#include "support/harness.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/saved.h"

/* Of two checkpoints the newest that is whole serves. */

static char bytes[SAVED_ROOM];

static void remove_all(void)
{
    static const char *const names[] = {"checkpoint.safetensors",
                                        "checkpoint-previous.safetensors",
                                        "checkpoint-damaged.safetensors"};
    for (int i = 0; i < 3; i++) unlink(saved_path(names[i]));
}

static bool exists(const char *name)
{
    return access(saved_path(name), F_OK) == 0;
}

static void save_in_folder(int64_t step)
{
    saved_set((double)step);
    OK(sbni_folder_save(test_folder(), saved_model, saved_optimizer, step, saved_settings,
                        SAVED_SETTINGS));
}

/* What is loaded from the folder; with a warning that has this text, or none. */
static void expect_loaded(int64_t want, const char *warning)
{
    int64_t step = 0;
    char *got;
    saved_set(-5);
    OK(sbni_folder_load(test_folder(), saved_model, saved_optimizer, &step,
                        saved_settings, SAVED_SETTINGS, &got));
    assert_int_equal(step, want);
    assert_true(saved_are(want ? (double)want : -5));
    if (!warning != !got || (got && !strstr(got, warning)))
        fail_msg("expected a warning of %s, got %s", warning ? warning : "nothing",
                 got ? got : "none");
    assert_true(!got || !strchr(got, '\n'));
    free(got);
}

static void expect_refused(const char *reason)
{
    int64_t step = 0;
    char *warning;
    FAILS(SBN_E_DATA, sbni_folder_load(test_folder(), saved_model, saved_optimizer, &step,
                                       saved_settings, SAVED_SETTINGS, &warning));
    assert_null(warning);
    if (!strstr(sbn_last_error(), reason))
        fail_msg("expected %s, got %s", reason, sbn_last_error());
}

static void damage(const char *name)
{
    int64_t n = saved_read(saved_path(name), bytes);
    bytes[n / 2 + n / 3] ^= 1;
    saved_write(saved_path(name), bytes, n);
}

static void previous_takes_over(void **state)
{
    (void)state;
    remove_all();
    expect_loaded(0, NULL);
    save_in_folder(10);
    expect_loaded(10, NULL);
    assert_false(exists("checkpoint-previous.safetensors"));
    save_in_folder(20);
    save_in_folder(30);
    expect_loaded(30, NULL);
    damage("checkpoint.safetensors");
    expect_loaded(20, "checkpoint.safetensors is damaged");
    assert_true(exists("checkpoint-damaged.safetensors"));
    assert_false(exists("checkpoint.safetensors"));
    /* the good one stays until there are two again */
    save_in_folder(31);
    damage("checkpoint.safetensors");
    expect_loaded(20, "going on from checkpoint-previous.safetensors, step 20");
    save_in_folder(31);
    save_in_folder(41);
    unlink(saved_path("checkpoint.safetensors"));
    expect_loaded(31, "is gone; going on");
    assert_int_equal(truncate(saved_path("checkpoint-previous.safetensors"), 100), 0);
    expect_refused("nor is there another");
    save_in_folder(50);
    expect_loaded(50, NULL);
    damage("checkpoint.safetensors");
    expect_refused("checkpoint.safetensors is damaged");
    remove_all();
}

/* One that is whole but of another run is refused, not passed over. */
static void other_settings_are_no_damage(void **state)
{
    (void)state;
    static const sbni_setting others[] = {{"seed", "4"}, {"lr", "0.05"}, {"batch", "16"}};
    remove_all();
    save_in_folder(10);
    OK(sbni_folder_save(test_folder(), saved_model, saved_optimizer, 20, others,
                        SAVED_SETTINGS));
    expect_refused("made with seed 4, this run has 3");
    assert_true(exists("checkpoint.safetensors"));
    OK(sbni_model_save(saved_path("checkpoint.safetensors"), saved_model));
    expect_refused("expected a checkpoint, got another kind of file");
    remove_all();
}

/* Both names of one file, as somebody may have linked them. */
static void names_of_one_file(void **state)
{
    (void)state;
    remove_all();
    save_in_folder(10);
    assert_int_equal(link(saved_path("checkpoint.safetensors"),
                          saved_path("checkpoint-previous.safetensors")),
                     0);
    save_in_folder(20);
    char temporary[80];
    snprintf(temporary, sizeof temporary, "checkpoint-previous.safetensors.tmp-%ld",
             (long)getpid());
    assert_false(exists(temporary));
    damage("checkpoint.safetensors");
    expect_loaded(10, "step 10");
    remove_all();
}

static void cleans_up(void **state)
{
    (void)state;
    static const char *const gone[] = {
        "checkpoint.safetensors.tmp-1",   "checkpoint-previous.safetensors.tmp-77",
        "model.safetensors.tmp-99999999", "run.json.tmp-5",
        "metrics.jsonl.tmp-123456",       "comm.json.tmp-2"};
    static const char *const stay[] = {"checkpoint.safetensors.tmp-", "notes.tmp-12",
                                       "checkpoint.safetensors.tmp-1x", "run.json",
                                       "my-run.json.tmp-5"};
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++)
        saved_write(saved_path(gone[i]), "x", 1);
    for (size_t i = 0; i < sizeof stay / sizeof *stay; i++)
        saved_write(saved_path(stay[i]), "x", 1);
    OK(sbni_folder_clean(test_folder()));
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) assert_false(exists(gone[i]));
    for (size_t i = 0; i < sizeof stay / sizeof *stay; i++) assert_true(exists(stay[i]));
    FAILS(SBN_E_IO, sbni_folder_clean(saved_path("nowhere")));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup(previous_takes_over, saved_make),
    cmocka_unit_test(other_settings_are_no_damage),
    cmocka_unit_test(names_of_one_file),
    cmocka_unit_test_teardown(cleans_up, saved_destroy),
};
TEST_MAIN(tests)

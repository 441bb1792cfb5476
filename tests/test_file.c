#include "train/file.h"
#include "support/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *path_of(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", test_folder(), name);
    return path;
}

static void replace(const char *path, const char *text, int commit)
{
    sbni_replacement *r = NULL;
    OK(sbni_replacement_begin(path, &r));
    /* in two pieces */
    OK(sbni_replacement_write(r, text, 1));
    OK(sbni_replacement_write(r, text + 1, (int64_t)strlen(text + 1)));
    if (commit) OK(sbni_replacement_commit(r, NULL));
    sbni_replacement_end(&r);
    assert_null(r);
    sbni_replacement_end(&r);
    sbni_replacement_end(NULL);
}

static void expect(const char *path, const char *want)
{
    char got[64] = "", temporary[600];
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    got[fread(got, 1, sizeof got - 1, f)] = 0;
    fclose(f);
    assert_string_equal(got, want);
    snprintf(temporary, sizeof temporary, "%s.tmp-%ld", path, (long)getpid());
    assert_int_equal(access(temporary, F_OK), -1);
}

static void replaced_only_by_commit(void **state)
{
    (void)state;
    const char *path = path_of("file");
    replace(path, "the first", 1);
    expect(path, "the first");
    replace(path, "not this", 0);
    expect(path, "the first");
    replace(path, "2nd", 1);
    expect(path, "2nd");
}

static void path_without_a_folder(void **state)
{
    (void)state;
    char old[512];
    assert_non_null(getcwd(old, sizeof old));
    assert_int_equal(chdir(test_folder()), 0);
    replace("plain", "here", 1);
    expect("plain", "here");
    OK(sbni_file_sync_folder("/dev"));
    assert_int_equal(chdir(old), 0);
}

/* A reader that cannot be waited for: the pipe takes part of the bytes. */
static void short_write_is_counted(void **state)
{
    (void)state;
    static const char bytes[1 << 20];
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
    int64_t done = sbni_file_write(ends[1], bytes, sizeof bytes);
    int reason = errno;
    assert_in_range(done, 1, sizeof bytes - 1);
    assert_int_equal(reason, EAGAIN);
    OK(sbni_file_sync(ends[1], "a pipe"));
    close(ends[0]);
    close(ends[1]);
    assert_int_equal(sbni_file_write(ends[1], bytes, 1), 0);
    assert_int_equal(errno, EBADF);
    FAILS(SBN_E_IO, sbni_file_sync(ends[1], "a closed pipe"));
    assert_non_null(strstr(sbn_last_error(), "a closed pipe: "));
}

static void folder_that_vanishes(void **state)
{
    (void)state;
    char folder[512], path[600];
    snprintf(folder, sizeof folder, "%s", path_of("folder"));
    snprintf(path, sizeof path, "%s/file", folder);
    assert_int_equal(mkdir(folder, 0700), 0);
    sbni_replacement *r = NULL;
    OK(sbni_replacement_begin(path, &r));
    char temporary[700];
    snprintf(temporary, sizeof temporary, "%s.tmp-%ld", path, (long)getpid());
    assert_int_equal(unlink(temporary), 0);
    assert_int_equal(rmdir(folder), 0);
    FAILS(SBN_E_IO, sbni_replacement_commit(r, NULL));
    assert_non_null(strstr(sbn_last_error(), path));
    assert_non_null(strstr(sbn_last_error(), strerror(ENOENT)));
    sbni_replacement_end(&r);
    FAILS(SBN_E_IO, sbni_file_sync_folder(path));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(replaced_only_by_commit),
    cmocka_unit_test(path_without_a_folder),
    cmocka_unit_test(short_write_is_counted),
    cmocka_unit_test(folder_that_vanishes),
};
TEST_MAIN(tests)

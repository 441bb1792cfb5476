#include "train/safetensors.h"
#include "support/harness.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *path_of(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", test_folder(), name);
    return path;
}

static void write_bytes(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static size_t read_bytes(const char *path, void *bytes, size_t room)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(bytes, 1, room, f);
    fclose(f);
    return n;
}

static int files_in_folder(void)
{
    DIR *dir = opendir(test_folder());
    int n = 0;
    for (struct dirent *e; (e = readdir(dir));) n += e->d_name[0] != '.';
    closedir(dir);
    return n;
}

static const double f64[] = {1, -0.5, 1e300, 5e-324, 0, 3};
static const float f32[] = {1.5f, -2, 3e38f};
static const int64_t i64[] = {INT64_MIN, INT64_MAX};
static const unsigned char bytes3[] = {1, 0, 255};

static const sbni_st_tensor all[] = {
    {"conv.weight", "F64", 3, {1, 2, 3}, f64, 48},
    {"steps", "I64", 1, {2}, i64, 16},
    {"u64", "U64", 1, {2}, i64, 16},
    {"scalar", "F32", 0, {0}, f32, 4},
    {"empty", "F64", 3, {4, 0, 7}, NULL, 0},
    {"empty, same place", "U8", 1, {0}, NULL, 0},
    {"f32", "F32", 2, {3, 1}, f32, 12},
    {"i32", "I32", 1, {2}, i64, 8},
    {"u32", "U32", 1, {1}, i64, 4},
    {"f16", "F16", 1, {1}, i64, 2},
    {"bf16", "BF16", 1, {2}, i64, 4},
    {"i16", "I16", 1, {1}, i64, 2},
    {"u16", "U16", 1, {1}, i64, 2},
    {"u8", "U8", 8, {1, 1, 1, 1, 1, 1, 1, 3}, bytes3, 3},
    {"i8", "I8", 1, {3}, bytes3, 3},
    {"", "BOOL", 1, {1}, bytes3, 1},
    {"also empty", "F64", 1, {0}, f64, 0},
    {"a \"name\" \\ /\n\t\x01 é 東 😀", "U8", 1, {2}, bytes3, 2},
};
enum { N_ALL = sizeof all / sizeof all[0] };

static const char *const metadata[][2] = {
    {"net", "cnn"},
    {"a \"key\"", "line\nline\r\n\ttab \\ \" / \x7f"},
    {"é 東 😀", ""},
    {"", "é 東 😀"},
};
enum { N_METADATA = sizeof metadata / sizeof metadata[0] };

static void round_trip(void **state)
{
    (void)state;
    const char *path = path_of("all.safetensors");
    OK(sbni_st_write(path, all, N_ALL, metadata, N_METADATA));
    sbni_st_file *f = NULL;
    OK(sbni_st_open(path, &f));
    assert_int_equal(sbni_st_count(f), N_ALL);
    for (int i = 0; i < N_ALL; i++) {
        const sbni_st_tensor *want = &all[i], *got = sbni_st_at(f, i);
        assert_ptr_equal(sbni_st_find(f, want->name), got);
        assert_string_equal(got->name, want->name);
        assert_string_equal(got->dtype, want->dtype);
        assert_int_equal(got->axes, want->axes);
        for (int a = 0; a < want->axes; a++)
            assert_int_equal(got->shape[a], want->shape[a]);
        assert_int_equal(got->bytes, want->bytes);
        if (want->bytes) assert_memory_equal(got->data, want->data, (size_t)want->bytes);
    }
    assert_null(sbni_st_find(f, "conv"));
    assert_null(sbni_st_find(f, "__metadata__"));
    for (int i = 0; i < N_METADATA; i++)
        assert_string_equal(sbni_st_metadata(f, metadata[i][0]), metadata[i][1]);
    assert_null(sbni_st_metadata(f, "ne"));
    sbni_st_close(&f);
    assert_null(f);
    sbni_st_close(&f);
    sbni_st_close(NULL);
}

static void no_tensors(void **state)
{
    (void)state;
    const char *path = path_of("none.safetensors");
    OK(sbni_st_write(path, NULL, 0, NULL, 0));
    char bytes[64];
    assert_int_equal(read_bytes(path, bytes, sizeof bytes), 16);
    assert_memory_equal(bytes, "\x08\0\0\0\0\0\0\0{}      ", 16);
    sbni_st_file *f = NULL;
    OK(sbni_st_open(path, &f));
    assert_int_equal(sbni_st_count(f), 0);
    assert_null(sbni_st_find(f, "x"));
    assert_null(sbni_st_metadata(f, "x"));
    sbni_st_close(&f);
    OK(sbni_st_write(path, NULL, 0, metadata, 1));
    OK(sbni_st_open(path, &f));
    assert_string_equal(sbni_st_metadata(f, "net"), "cnn");
    sbni_st_close(&f);
}

/* These very bytes are what other programs are known to load. */
static void bytes_of_a_file(void **state)
{
    (void)state;
    const char *path = path_of("bytes.safetensors");
    const sbni_st_tensor t = {"b", "U8", 2, {1, 3}, bytes3, 3};
    OK(sbni_st_write(path, &t, 1, metadata, 1));
    const char *want = "{\"__metadata__\":{\"net\":\"cnn\"},\"b\":{\"dtype\":\"U8\","
                       "\"shape\":[1,3],\"data_offsets\":[0,3]}}    ";
    char got[256];
    size_t n = strlen(want);
    assert_int_equal(n % 8, 0);
    assert_int_equal(read_bytes(path, got, sizeof got), 8 + n + 3);
    assert_int_equal((unsigned char)got[0], n);
    assert_memory_equal(got + 8, want, n);
    assert_memory_equal(got + 8 + n, bytes3, 3);
}

static void same_arguments_same_bytes(void **state)
{
    (void)state;
    static char a[8192], b[8192];
    OK(sbni_st_write(path_of("one"), all, N_ALL, metadata, N_METADATA));
    size_t n = read_bytes(path_of("one"), a, sizeof a);
    OK(sbni_st_write(path_of("another name"), all, N_ALL, metadata, N_METADATA));
    assert_int_equal(read_bytes(path_of("another name"), b, sizeof b), n);
    assert_memory_equal(a, b, n);
    OK(sbni_st_write(path_of("one"), all, 1, NULL, 0));
    OK(sbni_st_write(path_of("one"), all, N_ALL, metadata, N_METADATA));
    assert_int_equal(read_bytes(path_of("one"), b, sizeof b), n);
    assert_memory_equal(a, b, n);
}

static void bad_arguments(void **state)
{
    (void)state;
    const struct {
        sbni_st_tensor t;
        const char *text;
    } cases[] = {
        {{NULL, "U8", 1, {3}, bytes3, 3}, "no name"},
        {{"__metadata__", "U8", 1, {3}, bytes3, 3}, "no name"},
        {{"\xc3", "U8", 1, {3}, bytes3, 3}, "UTF-8"},
        {{"t", "U9", 1, {3}, bytes3, 3}, "unknown dtype"},
        {{"t", NULL, 1, {3}, bytes3, 3}, "unknown dtype"},
        {{"t", "U8", 9, {3}, bytes3, 3}, "got 9"},
        {{"t", "U8", -1, {3}, bytes3, 3}, "got -1"},
        {{"t", "U8", 1, {-3}, bytes3, 3}, "negative shape[0] -3"},
        {{"t", "U8", 2, {INT64_MAX, 2}, bytes3, 3}, "overflows"},
        {{"t", "F64", 1, {INT64_MAX}, bytes3, 3}, "overflows"},
        {{"t", "U8", 1, {4}, bytes3, 3}, "expected 4 bytes, got 3"},
        {{"t", "U8", 1, {3}, NULL, 3}, "expected 3 bytes"},
    };
    const char *path = path_of("argument.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        FAILS(SBN_E_ARG, sbni_st_write(path, &cases[i].t, 1, NULL, 0));
        assert_non_null(strstr(sbn_last_error(), cases[i].text));
    }
    const sbni_st_tensor twice[] = {all[0], all[1], all[0]};
    FAILS(SBN_E_ARG, sbni_st_write(path, twice, 3, NULL, 0));
    assert_non_null(strstr(sbn_last_error(), "\"conv.weight\" is given twice"));
    const char *const bad[][2] = {{"k", "v"},    {"k", "w"},  {"l", "\xff"},
                                  {"\xff", "v"}, {"l", NULL}, {NULL, "v"}};
    FAILS(SBN_E_ARG, sbni_st_write(path, all, N_ALL, bad, 2));
    for (int i = 2; i < 6; i++)
        FAILS(SBN_E_ARG, sbni_st_write(path, all, N_ALL, &bad[i], 1));
    FAILS(SBN_E_ARG, sbni_st_write(NULL, all, N_ALL, NULL, 0));
    FAILS(SBN_E_ARG, sbni_st_write(path, NULL, 1, NULL, 0));
    FAILS(SBN_E_ARG, sbni_st_write(path, all, -1, NULL, 0));
    assert_int_equal(access(path, F_OK), -1);
}

/* A write that fails must name the reason and leave the folder as it was. */
static void expect_no_write(const char *path, int reason)
{
    int before = files_in_folder();
    FAILS(SBN_E_IO, sbni_st_write(path, all, N_ALL, metadata, N_METADATA));
    assert_non_null(strstr(sbn_last_error(), path));
    assert_non_null(strstr(sbn_last_error(), strerror(reason)));
    assert_int_equal(files_in_folder(), before);
}

static void cannot_write(void **state)
{
    (void)state;
    expect_no_write(path_of("no/such/file"), ENOENT);
    write_bytes(path_of("plain"), "x", 1);
    expect_no_write(path_of("plain/file"), ENOTDIR);
    assert_int_equal(mkdir(path_of("folder"), 0700), 0);
    expect_no_write(path_of("folder"), EISDIR);
    char name[300];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    expect_no_write(path_of(name), ENAMETOOLONG);
    /* a pipe or a device must not be replaced by a file */
    const char *path = path_of("pipe");
    assert_int_equal(mkfifo(path, 0600), 0);
    FAILS(SBN_E_IO, sbni_st_write(path, all, N_ALL, NULL, 0));
    struct stat s;
    assert_int_equal(stat(path, &s), 0);
    assert_true(S_ISFIFO(s.st_mode));
}

static void old_file_survives_a_full_disk(void **state)
{
    (void)state;
    static char old[8192], now[8192], tensor[65536];
    const char *path = path_of("survivor.safetensors");
    OK(sbni_st_write(path, all, N_ALL, metadata, N_METADATA));
    size_t n = read_bytes(path, old, sizeof old);
    int files = files_in_folder();
    const sbni_st_tensor large = {"large", "U8", 1, {65536}, tensor, 65536};
    struct rlimit limit, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    /* in the length, in the header, in the data, one byte before the end */
    const rlim_t limits[] = {0, 30, 5000, 8 + 72 + 65536 - 1};
    for (int i = 0; i < 4; i++) {
        small = limit;
        small.rlim_cur = limits[i];
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        sbn_status status = sbni_st_write(path, &large, 1, NULL, 0);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        assert_int_equal(status, SBN_E_IO);
        assert_non_null(strstr(sbn_last_error(), path));
        assert_non_null(strstr(sbn_last_error(), strerror(EFBIG)));
        assert_int_equal(files_in_folder(), files);
        assert_int_equal(read_bytes(path, now, sizeof now), n);
        assert_memory_equal(now, old, n);
    }
    signal(SIGXFSZ, handler);
    OK(sbni_st_write(path, &large, 1, NULL, 0));
    struct stat s;
    assert_int_equal(stat(path, &s), 0);
    assert_int_equal(s.st_size, 8 + 72 + 65536);
    assert_int_equal(files_in_folder(), files);
}

/* A reader that has the old file open keeps it whole; a left-over temporary is no
 * obstacle. */
static void replaced_while_open(void **state)
{
    (void)state;
    const char *path = path_of("open.safetensors");
    char temporary[600];
    snprintf(temporary, sizeof temporary, "%s.tmp-%ld", path, (long)getpid());
    write_bytes(temporary, "left over", 9);
    OK(sbni_st_write(path, all, N_ALL, NULL, 0));
    assert_int_equal(access(temporary, F_OK), -1);
    sbni_st_file *f = NULL, *g = NULL;
    OK(sbni_st_open(path, &f));
    OK(sbni_st_write(path, &all[1], 1, NULL, 0));
    OK(sbni_st_open(path, &g));
    assert_int_equal(sbni_st_count(f), N_ALL);
    assert_memory_equal(sbni_st_at(f, 0)->data, f64, sizeof f64);
    assert_int_equal(sbni_st_count(g), 1);
    sbni_st_close(&f);
    sbni_st_close(&g);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(round_trip),
    cmocka_unit_test(no_tensors),
    cmocka_unit_test(bytes_of_a_file),
    cmocka_unit_test(same_arguments_same_bytes),
    cmocka_unit_test(bad_arguments),
    cmocka_unit_test(cannot_write),
    cmocka_unit_test(old_file_survives_a_full_disk),
    cmocka_unit_test(replaced_while_open),
};
TEST_MAIN(tests)

/* Files and calls that cannot be: refused on every process, with nothing changed. */
#include "support/harness.h"
#include "support/layer.h"

#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "syncbn/state.h"
#include "train/safetensors.h"

enum { C = 3, TENSORS = 5 };

static sbn_group *self;
static sbn_norm *norm, *second;
static unsigned char before[2][4 * C * 8 + 8];

static const char *path_of(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", test_folder(), name);
    return path;
}

static void copy_state(sbn_norm *n, unsigned char *to)
{
    sbn_norm_state s = sbn_norm_get_state(n);
    const void *arrays[] = {s.weight, s.bias, s.running_mean, s.running_var};
    for (int k = 0; k < 4; k++)
        for (int i = 0; i < C; i++) {
            double v = element(SBN_F32, arrays[k], i);
            memcpy(to + 8 * (k * C + i), &v, 8);
        }
    memcpy(to + 8 * 4 * C, s.num_batches_tracked, 8);
}

/* Two float layers in state 0.5, 1.5, …, with 11 batches. */
static int make_layers(void **state)
{
    (void)state;
    OK(sbn_group_create(MPI_COMM_SELF, &self));
    sbn_norm_config cfg = sbn_norm_config_default(C);
    sbn_norm **layers[] = {&norm, &second};
    for (int l = 0; l < 2; l++) {
        OK(sbn_norm_create(&cfg, test_group, layers[l]));
        sbn_norm_state s = sbn_norm_get_state(*layers[l]);
        void *arrays[] = {s.weight, s.bias, s.running_mean, s.running_var};
        for (int k = 0; k < 4; k++)
            for (int i = 0; i < C; i++) set_element(SBN_F32, arrays[k], i, k + i + 0.5);
        *s.num_batches_tracked = 11;
        copy_state(*layers[l], before[l]);
    }
    return 0;
}

static int drop_layers(void **state)
{
    (void)state;
    sbn_norm_destroy(&norm);
    sbn_norm_destroy(&second);
    sbn_group_destroy(&self);
    return 0;
}

static void check_unchanged(void)
{
    unsigned char now[sizeof before[0]];
    copy_state(norm, now);
    same_bits(now, before[0], sizeof now);
    copy_state(second, now);
    same_bits(now, before[1], sizeof now);
    OK(sbn_group_agree(test_group, SBN_OK));
}

/* A good state of "bad", to be spoiled. */
static float weight[C] = {1, 1, 1}, bias[C] = {0, 0, 0}, mean[C] = {4, 5, 6},
             var[C] = {1, 2, 3};
static int64_t count = 3;
static const sbni_st_tensor good[TENSORS] = {
    {"bad.num_batches_tracked", "I64", 0, {0}, &count, 8},
    {"bad.weight", "F32", 1, {C}, weight, 4 * C},
    {"bad.bias", "F32", 1, {C}, bias, 4 * C},
    {"bad.running_mean", "F32", 1, {C}, mean, 4 * C},
    {"bad.running_var", "F32", 1, {C}, var, 4 * C}};
enum { COUNT, WEIGHT, BIAS, MEAN, VAR };

/* The file has these n tensors, and a good layer before them. Loading both fails on
 * process 0 with this text, elsewhere with news of it, and neither layer changes. */
static void check_file(const sbni_st_tensor *list, int n, const char *text)
{
    sbni_st_tensor all[2 * TENSORS];
    char names[TENSORS][64];
    for (int i = 0; i < TENSORS; i++) {
        all[i] = good[i];
        snprintf(names[i], sizeof names[i], "good%s", strchr(good[i].name, '.'));
        all[i].name = names[i];
    }
    memcpy(all + TENSORS, list, (size_t)n * sizeof *list);
    const char *path = path_of("spoiled");
    if (test_rank == 0) OK(sbni_st_write(path, all, TENSORS + n, NULL, 0));
    sbn_state_entry entries[] = {{"good", norm, false}, {"bad", second, false}};
    FAILS(test_rank == 0 ? SBN_E_DATA : SBN_E_PEER,
          sbn_state_load(test_rank == 0 ? path : NULL, entries, 2, test_group));
    if (test_rank) assert_int_equal(sbn_peer_status(), SBN_E_DATA);
    if (!strstr(sbn_last_error(), text) || !strstr(sbn_last_error(), path))
        fail_msg("expected %s and %s, got %s", path, text, sbn_last_error());
    check_unchanged();
}

static void missing_tensors(void **state)
{
    (void)state;
    for (int k = WEIGHT; k < TENSORS; k++) {
        sbni_st_tensor list[TENSORS];
        int n = 0;
        char text[128];
        for (int i = 0; i < TENSORS; i++)
            if (i != k) list[n++] = good[i];
        snprintf(text, sizeof text, "expected a tensor %s of shape [3], found none",
                 good[k].name);
        check_file(list, n, text);
    }
}

/* One tensor in place of a good one. */
static void check_tensor(int at, sbni_st_tensor wrong, const char *text)
{
    sbni_st_tensor list[TENSORS];
    memcpy(list, good, sizeof list);
    wrong.name = good[at].name;
    list[at] = wrong;
    check_file(list, TENSORS, text);
}

static void shapes_and_types(void **state)
{
    (void)state;
    static const int64_t words[2 * C] = {0};
    for (int k = WEIGHT; k < TENSORS; k++) {
        check_tensor(k, (sbni_st_tensor){NULL, "F32", 1, {2}, words, 8},
                     "expected shape [3], got [2]");
        check_tensor(k, (sbni_st_tensor){NULL, "F32", 2, {3, 1}, words, 12},
                     "expected shape [3], got [3,1]");
        check_tensor(k, (sbni_st_tensor){NULL, "F32", 0, {0}, words, 4},
                     "expected shape [3], got []");
        check_tensor(k, (sbni_st_tensor){NULL, "I64", 1, {3}, words, 24},
                     "expected elements F64, F32, F16 or BF16, got I64");
        check_tensor(k, (sbni_st_tensor){NULL, "U8", 1, {3}, words, 3}, "got U8");
    }
    check_tensor(COUNT, (sbni_st_tensor){NULL, "I64", 1, {1}, words, 8},
                 "expected one I64 of shape [], got I64 of shape [1]");
    check_tensor(COUNT, (sbni_st_tensor){NULL, "F64", 0, {0}, words, 8},
                 "expected one I64 of shape [], got F64 of shape []");
    int64_t negative = -1;
    check_tensor(COUNT, (sbni_st_tensor){NULL, "I64", 0, {0}, &negative, 8}, "got -1");
}

static void values(void **state)
{
    (void)state;
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int k = WEIGHT; k < TENSORS; k++)
        for (int i = 0; i < 3; i++) {
            float v[C] = {1, 1, bad[i]};
            check_tensor(k, (sbni_st_tensor){NULL, "F32", 1, {C}, v, 12}, "channel 2");
        }
    float negative[C] = {1, -1e-30f, 1};
    check_tensor(VAR, (sbni_st_tensor){NULL, "F32", 1, {C}, negative, 12},
                 "bad.running_var: expected variances >= 0, got -1e-30 in channel 1");
    double large[C] = {1e39, 1, 1}; /* finite, but not as a float */
    check_tensor(MEAN, (sbni_st_tensor){NULL, "F64", 1, {C}, large, 24}, "channel 0");
    const uint16_t half[C] = {0x3c00, 0x3c00, 0xfc00};
    check_tensor(BIAS, (sbni_st_tensor){NULL, "F16", 1, {C}, half, 6},
                 "got -inf in channel 2");
}

static void no_state_files(void **state)
{
    (void)state;
    sbn_state_entry entry = {"bad", norm, false};
    const char *path = path_of("text");
    if (test_rank == 0) {
        FILE *f = fopen(path, "w");
        fputs("not a safetensors file", f);
        fclose(f);
    }
    FAILS(test_rank == 0 ? SBN_E_DATA : SBN_E_PEER,
          sbn_state_load(path, &entry, 1, test_group));
    FAILS(test_rank == 0 ? SBN_E_IO : SBN_E_PEER,
          sbn_state_load(test_folder(), &entry, 1, test_group));
    FAILS(test_rank == 0 ? SBN_E_ARG : SBN_E_PEER,
          sbn_state_load(test_rank == 0 ? NULL : path, &entry, 1, test_group));
    FAILS(test_rank == 0 ? SBN_E_ARG : SBN_E_PEER,
          sbn_state_save(test_rank == 0 ? NULL : path, &entry, 1, test_group));
    path = path_of("nowhere/state");
    FAILS(test_rank == 0 ? SBN_E_IO : SBN_E_PEER,
          sbn_state_save(path, &entry, 1, test_group));
    check_unchanged();
}

/* A layer without gamma and beta, one without running statistics: there and back; what a
 * layer has no place for. */
static void layers_of_other_kinds(void **state)
{
    (void)state;
    const char *path = path_of("kinds");
    sbn_norm *plain, *untracked;
    sbn_norm_config cfg = sbn_norm_config_default(C);
    cfg.affine = false;
    OK(sbn_norm_create(&cfg, test_group, &plain));
    cfg.affine = true;
    cfg.track_running_stats = false;
    OK(sbn_norm_create(&cfg, test_group, &untracked));
    sbn_state_entry entries[] = {{"plain", plain, true}, {"untracked", untracked, true}};
    OK(sbn_state_save(path, entries, 2, test_group));
    OK(sbn_state_load(path, entries, 2, test_group));
    assert_false(entries[0].count_missing || entries[1].count_missing);
    if (test_rank == 0) {
        sbni_st_file *file;
        OK(sbni_st_open(path, &file));
        assert_int_equal(sbni_st_count(file), 5);
        sbni_st_close(&file);
        OK(sbni_st_write(path, good, TENSORS, NULL, 0));
    }
    /* statistics that are not tracked are not missed; a weight that would be */
    sbn_state_entry full = {"bad", untracked, true};
    OK(sbn_state_load(path, &full, 1, test_group));
    assert_false(full.count_missing);
    full.norm = plain;
    FAILS(test_rank == 0 ? SBN_E_DATA : SBN_E_PEER,
          sbn_state_load(path, &full, 1, test_group));
    assert_non_null(strstr(sbn_last_error(), "bad.weight, but this layer is not affine"));
    sbn_norm_destroy(&plain);
    sbn_norm_destroy(&untracked);
}

/* One process's mistake, each in turn. */
static void wrong_calls(void **state)
{
    (void)state;
    const char *path = path_of("calls");
    char long_prefix[202];
    memset(long_prefix, 'p', 201);
    long_prefix[201] = 0;
    sbn_state_entry right[] = {{"a", norm, false}, {"b", second, false}};
    OK(sbn_state_save(path, right, 2, test_group));
    FAILS(SBN_E_ARG, sbn_state_save(path, right, 2, NULL));
    FAILS(SBN_E_ARG, sbn_state_load(path, right, 2, NULL));
    for (int wrong = 0; wrong < test_size; wrong++) {
        bool me = test_rank == wrong;
        sbn_status want = me ? SBN_E_ARG : SBN_E_PEER;
        sbn_state_entry bad[][2] = {{{"a", NULL, false}, right[1]},
                                    {right[0], {NULL, second, false}},
                                    {right[0], {long_prefix, second, false}}};
        for (int k = 0; k < 3; k++) {
            FAILS(want, sbn_state_save(path, me ? bad[k] : right, 2, test_group));
            FAILS(want, sbn_state_load(path, me ? bad[k] : right, 2, test_group));
        }
        FAILS(want, sbn_state_load(path, me ? NULL : right, 2, test_group));
        FAILS(want, sbn_state_save(path, right, me ? 0 : 2, test_group));
        if (test_size == 1) continue;
        sbn_state_entry other[] = {{"a", norm, false}, {"c", second, false}};
        FAILS(SBN_E_MISMATCH, sbn_state_load(path, me ? other : right, 2, test_group));
        assert_non_null(strstr(sbn_last_error(), "entry 1"));
        FAILS(SBN_E_MISMATCH, sbn_state_save(path, me ? other : right, 2, test_group));
        FAILS(SBN_E_MISMATCH, sbn_state_load(path, right, me ? 1 : 2, test_group));
    }
    sbn_state_entry twice[] = {{"a", norm, false}, {"a", second, false}};
    FAILS(test_rank == 0 ? SBN_E_ARG : SBN_E_PEER,
          sbn_state_save(path, twice, 2, test_group));
    check_unchanged();
    OK(sbn_state_load(path, right, 2, test_group)); /* what was saved first is there */
}

/* Which state is saved where processes hold different ones: none. */
static void trap_14_only_a_common_state_is_saved(void **state)
{
    (void)state;
    const char *path = path_of("common");
    sbn_state_entry entries[9];
    for (int i = 0; i < 9; i++) entries[i] = (sbn_state_entry){"x", norm, false};
    entries[8] = (sbn_state_entry){"late", second, false};
    for (int wrong = 0; test_size > 1 && wrong < test_size; wrong++) {
        sbn_norm_state s = sbn_norm_get_state(second);
        void *arrays[] = {s.weight, s.bias, s.running_mean, s.running_var};
        for (int k = 0; k < 4; k++) {
            if (test_rank == wrong) set_element(SBN_F32, arrays[k], 1, 77);
            FAILS(SBN_E_MISMATCH, sbn_state_save(path, entries, 9, test_group));
            assert_non_null(strstr(sbn_last_error(), "entry 8, late, differs"));
            set_element(SBN_F32, arrays[k], 1, k + 1.5);
        }
        if (test_rank == wrong) ++*s.num_batches_tracked;
        FAILS(SBN_E_MISMATCH, sbn_state_save(path, entries, 9, test_group));
        *s.num_batches_tracked = 11;
    }
    struct stat info;
    assert_int_not_equal(stat(path, &info), 0);
    check_unchanged();
    /* each for itself is fine */
    char own[64];
    snprintf(own, sizeof own, "own-%d", test_rank);
    OK(sbn_state_save(path_of(own), &entries[8], 1, self));
}

static void not_between_begin_and_end(void **state)
{
    (void)state;
    sbn_norm_config cfg = sbn_norm_config_default(C);
    sbn_norm *alone;
    OK(sbn_norm_create(&cfg, self, &alone));
    float x_data[2 * C] = {1, 2, 3, 4, 5, 6}, y_data[2 * C];
    sbn_tensor x = sbn_tensor_nc(SBN_F32, x_data, 2, C),
               y = sbn_tensor_nc(SBN_F32, y_data, 2, C);
    bool guilty = test_rank == test_size - 1;
    sbn_state_entry entry = {"n", alone, false};
    if (guilty) OK(sbn_norm_forward_begin(alone, &x, &y));
    sbn_status want = guilty ? SBN_E_STATE : SBN_E_PEER;
    FAILS(want, sbn_state_save(path_of("begun"), &entry, 1, test_group));
    FAILS(want, sbn_state_load(path_of("begun"), &entry, 1, test_group));
    if (guilty) OK(sbn_norm_forward_end(alone));
    sbn_norm_destroy(&alone);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, make_layers, drop_layers)
static const struct CMUnitTest tests[] = {
    CASE(missing_tensors),
    CASE(shapes_and_types),
    CASE(values),
    CASE(no_state_files),
    CASE(layers_of_other_kinds),
    CASE(wrong_calls),
    CASE(trap_14_only_a_common_state_is_saved),
    CASE(not_between_begin_and_end),
};
TEST_MAIN(tests)

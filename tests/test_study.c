#include "support/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "study/claim.h"
#include "study/design.h"
#include "study/finding.h"
#include "study/pairs.h"
#include "study/presets.h"
#include "study/record.h"
#include "study/statistics.h"
#include "study/trial.h"
#include "syncbn/trainer.h"

/* Of tables of Student's t, to the digits that these have. */
static void quantiles_of_tables(void **state)
{
    (void)state;
    static const struct {
        double p, dof, t;
    } table[] = {
        {0.975, 1, 12.7062},  {0.975, 2, 4.30265},  {0.975, 4, 2.77645},
        {0.975, 9, 2.26216},  {0.975, 30, 2.04227}, {0.95, 5, 2.01505},
        {0.995, 10, 3.16927}, {0.025, 4, -2.77645},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        CLOSE(sbni_student_quantile(table[i].p, table[i].dof), table[i].t, 1e-5 * 12);
    /* closed forms: Cauchy of one degree; t = (2p−1)/√(2p(1−p)) of two; the normal's
     * limit */
    for (double p = 0.55; p < 0.9999; p += 0.0444) {
        CLOSE(sbni_student_quantile(p, 1), tan(acos(-1.0) * (p - 0.5)), 1e-9 / (1 - p));
        CLOSE(sbni_student_quantile(p, 2), (2 * p - 1) / sqrt(2 * p * (1 - p)),
              1e-9 / (1 - p));
    }
    CLOSE(sbni_student_quantile(0.975, 1e7), 1.959964, 1e-5);
    CLOSE(sbni_student_quantile(0.5, 3), 0, 1e-12);
}

/* mean 5, deviation √2.5; half of the interval 2.77645·√(2.5/5) */
static void intervals_by_hand(void **state)
{
    (void)state;
    const double v[] = {3, 4, 5, 6, 7};
    sbni_sample s = sbni_sample_of(v, 5);
    assert_int_equal(s.n, 5);
    CLOSE(s.mean, 5, 1e-15);
    CLOSE(s.sd, sqrt(2.5), 1e-15);
    CLOSE(s.low, 5 - 2.7764451 * sqrt(0.5), 1e-6);
    CLOSE(s.high, 5 + 2.7764451 * sqrt(0.5), 1e-6);
    assert_int_equal(sbni_sample_sign(&s), 1);
    s = sbni_sample_of(v, 1);
    assert_true(s.n == 1 && s.mean == 3 && isnan(s.sd) && isnan(s.low));
    assert_int_equal(sbni_sample_sign(&s), 0);
    s = sbni_sample_of(v, 0);
    assert_true(s.n == 0 && isnan(s.mean));
}

/* Seeds that move both methods alike leave the difference sharp; a missing value takes
 * its pair with it. */
static void pairs_by_seed(void **state)
{
    (void)state;
    const double a[] = {10, 20, 30, (double)NAN, 50}, b[] = {11, 21.5, 31, 40, 51.5};
    sbni_sample d = sbni_sample_paired(a, b, 5);
    assert_int_equal(d.n, 4);
    CLOSE(d.mean, -1.25, 1e-15);
    CLOSE(d.sd, sqrt(0.25 / 3), 1e-15);
    assert_int_equal(sbni_sample_sign(&d), -1);
    sbni_sample apart = sbni_sample_of(a, 5);
    assert_true(apart.high - apart.low > 10 * (d.high - d.low));
}

static void settings_replace_each_other(void **state)
{
    (void)state;
    sbni_pairs p = {0};
    sbni_train_settings s;
    OK(sbni_pairs_read(&p, "norm=group:5 lr=0.1  epochs=3 nesterov=on"));
    OK(sbni_pairs_read(&p, "lr=0.25 steps=7"));
    OK(sbni_pairs_resolve(&p, &s));
    assert_true(s.run.schedule.lr == 0.25 && s.run.steps == 7 && s.run.nesterov);
    assert_true(s.run.norm == SBN_MODEL_NORM_GROUP && s.run.norm_groups == 5);
    assert_null(sbni_pairs_get(&p, "epochs"));
    OK(sbni_pairs_set(&p, "nesterov", "off"));
    OK(sbni_pairs_resolve(&p, &s));
    assert_false(s.run.nesterov);
    FAILS(SBN_E_ARG, sbni_pairs_read(&p, "lr"));
    OK(sbni_pairs_set(&p, "bogus", "1"));
    FAILS(SBN_E_ARG, sbni_pairs_resolve(&p, &s));
    p.n--;
    OK(sbni_pairs_set(&p, "lr", "fast"));
    FAILS(SBN_E_ARG, sbni_pairs_resolve(&p, &s));
}

/* Every preset in both forms: settings that train takes, keys that differ, seeds enough.
 */
static void presets_are_sound(void **state)
{
    (void)state;
    const sbni_study *study;
    for (int i = 0; (study = sbni_preset(i)); i++)
        for (int quick = 0; quick < 2; quick++) {
            sbni_request r = {.study = study, .quick = quick};
            sbni_design *d;
            if (study == &sbni_study_grid) r.vary = (sbni_texts){{"lr=1,2"}, 1};
            OK(sbni_pairs_set(&r.given, "data", "synthetic"));
            OK(sbni_design_create(&r, &d));
            assert_true(quick || d->seeds >= 5);
            for (int t = 0; t < d->n_trials; t++) {
                assert_true(d->trials[t].cost > 0);
                for (int u = 0; u < t; u++)
                    assert_string_not_equal(d->trials[t].key, d->trials[u].key);
            }
            sbni_design_destroy(&d);
            assert_null(d);
        }
}

/* Group norm and tracked layers of the nets that come along. */
static void nets_are_looked_at(void **state)
{
    (void)state;
    static const struct {
        const char *net;
        int groups;
        const char *norm, *before;
    } want[] = {{"cnn", 5, "dense1_bn", "dense1"},
                {"mlp", 5, "dense3_bn", "dense3"},
                {"resnet8", 8, "stage3_bn2", "stage3_conv2"}};
    for (int i = 0; i < 3; i++) {
        sbni_netview view;
        OK(sbni_netview_read(want[i].net, &view));
        assert_int_equal(view.groups, want[i].groups);
        assert_string_equal(view.norm, want[i].norm);
        assert_string_equal(view.before, want[i].before);
    }
    sbni_netview none;
    FAILS(SBN_E_ARG, sbni_netview_read("bogus", &none));
}

static void grids_are_products(void **state)
{
    (void)state;
    sbni_request r = {.study = &sbni_study_grid, .seeds = 2};
    r.vary = (sbni_texts){{"norm=batch,group:5", "norm-batch=4,2", "lr=0.1,0.2"}, 3};
    OK(sbni_pairs_set(&r.given, "data", "synthetic"));
    sbni_design *d;
    OK(sbni_design_create(&r, &d));
    assert_int_equal(d->n_points, 8);
    assert_int_equal(d->n_trials, 16);
    assert_int_equal(d->n_arms, 4);
    assert_string_equal(d->arms[0].name, "norm batch, lr 0.1");
    assert_true(d->points[0].x == 4 && d->points[1].x == 2);
    assert_string_equal(d->trials[3].key, "lr=0.1,norm=batch,norm-batch=2,seed=2");
    assert_string_equal(d->trials[4].key, "lr=0.1,norm=group-5,norm-batch=4,seed=1");
    sbni_design_destroy(&d);
    OK(sbni_pairs_set(&r.given, "lr", "0.3"));
    FAILS(SBN_E_ARG, sbni_design_create(&r, &d));
    /* numbers among words are words: "2" is not the place of "all" */
    r.vary = (sbni_texts){{"norm-batch=2,4,all"}, 1};
    OK(sbni_design_create(&r, &d));
    for (int i = 0; i < 3; i++) assert_true(d->points[i].x == i);
    assert_string_equal(d->x_words[0], "2");
    assert_string_equal(d->x_words[2], "all");
    sbni_design_destroy(&d);
    /* what would replace each other */
    r.vary = (sbni_texts){{"momentum=0.1,0.9", "momentum=0"}, 2};
    FAILS(SBN_E_ARG, sbni_design_create(&r, &d));
    r.vary = (sbni_texts){{"epochs=1,2", "steps=5"}, 2};
    FAILS(SBN_E_ARG, sbni_design_create(&r, &d));
    OK(sbni_pairs_set(&r.given, "steps", "50"));
    r.vary.n = 1;
    FAILS(SBN_E_ARG, sbni_design_create(&r, &d));
    r.vary = (sbni_texts){{"lr="}, 1};
    FAILS(SBN_E_ARG, sbni_design_create(&r, &d));
    r.vary = (sbni_texts){{"seed=1,2"}, 1};
    FAILS(SBN_E_ARG, sbni_design_create(&r, &d));
    r.vary.n = 0;
    FAILS(SBN_E_ARG, sbni_design_create(&r, &d));
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void results_of_metrics(void **state)
{
    (void)state;
    char path[4096], saved[4096];
    snprintf(path, sizeof path, "%s/metrics-%d.jsonl", test_folder(), test_rank);
    snprintf(saved, sizeof saved, "%s/result-%d.json", test_folder(), test_rank);
    write_text(
        path,
        "{\"kind\":\"step\",\"step\":1,\"epoch\":1,\"loss\":2.0,\"lr\":0.1}\n"
        "{\"kind\":\"activations\",\"step\":1,\"layer\":\"a\",\"unit\":0,\"p15\":-1,"
        "\"p50\":0,"
        "\"p85\":1}\n"
        "{\"kind\":\"statistics\",\"step\":1,\"layer\":\"a\",\"mean_noise\":0.5,"
        "\"var_noise\":0.25}\n"
        "{\"kind\":\"statistics\",\"step\":2,\"layer\":\"a\",\"mean_noise\":0.25,"
        "\"var_noise\":0.75}\n"
        "{\"kind\":\"noise_scale\",\"step\":1,\"grad_sq\":1,\"trace\":7}\n"
        "{\"kind\":\"noise_scale\",\"step\":2,\"grad_sq\":1,\"trace\":300}\n"
        "{\"kind\":\"noise_scale\",\"step\":3,\"grad_sq\":3,\"trace\":100}\n"
        "{\"kind\":\"eval\",\"epoch\":1,\"step\":1,\"test_loss\":1,\"test_accuracy\":0.5}"
        "\n"
        "{\"kind\":\"step\",\"step\":2,\"epoch\":1,\"loss\":0.5,\"lr\":0.1}\n"
        "{\"kind\":\"activations\",\"step\":2,\"layer\":\"a\",\"unit\":0,\"p15\":-1,"
        "\"p50\":2,"
        "\"p85\":3}\n"
        "{\"kind\":\"eval\",\"epoch\":2,\"step\":2,\"test_loss\":0.5,\"test_accuracy\":0."
        "75,"
        "\"train_loss\":0.25,\"train_accuracy\":0.875}\n"
        "{\"kind\":\"precise\",\"step\":2,\"test_loss\":0.5,\"test_accuracy\":0.8125}\n"
        "{\"kind\":\"done\",\"steps\":2,\"seconds\":1,\"test_accuracy\":0.75,\"target\":"
        "0.7,"
        "\"reached\":true}\n");
    static const struct {
        const char *name;
        double value;
    } want[] = {{"test_error", 0.25},
                {"error_at/1", 0.5},
                {"train_error", 0.125},
                {"gap", 0.125},
                {"precise_test_error", 0.1875},
                {"test_loss", 0.5},
                {"batch_loss", 0.5},
                {"steps", 2},
                {"epochs", 2},
                {"reached", 1},
                {"steps_to_target", 2},
                {"mean_noise/a", 0.375},
                {"var_noise/a", 0.5},
                {"mean_noise", 0.375},
                {"noise_scale", 100},
                /* deviations 0, 1, 1 of three percentiles over a distance of 3 */
                {"drift", 2.0 / 3 / 3}};
    sbni_record record, loaded;
    bool found;
    OK(sbni_record_collect(path, 1, &record));
    OK(sbni_record_save(saved, &record));
    OK(sbni_record_load(saved, &loaded, &found));
    assert_true(found);
    assert_string_equal(loaded.status, "done");
    assert_int_equal(loaded.n, record.n);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        CLOSE(sbni_record_get(&record, want[i].name), want[i].value, 1e-15);
        assert_true(sbni_record_get(&loaded, want[i].name) ==
                    sbni_record_get(&record, want[i].name));
    }
    assert_true(isnan(sbni_record_get(&record, "nothing")));
    assert_true(isnan(sbni_record_get(&record, "error_at/2")));
    write_text(path, "{\"kind\":\"eval\"\n");
    FAILS(SBN_E_DATA, sbni_record_collect(path, 1, &record));
    OK(sbni_record_load("/nowhere/result.json", &loaded, &found));
    assert_false(found);
}

enum { ITEMS = 500 };

/* Each process marks what it takes; together every item once, whatever an earlier job
 * left in the file. */
static void items_are_taken_once(void **state)
{
    (void)state;
    char path[4096], mark[4200];
    snprintf(path, sizeof path, "%s/claims", test_folder());
    sbni_claims *claims = NULL;
    for (int job = 0; job < 2; job++) {
        if (test_rank == 0) OK(sbni_claims_begin(path, &claims));
        OK(sbn_group_agree(test_group, SBN_OK));
        if (test_rank) OK(sbni_claims_join(path, &claims));
        int64_t item, mine = 0;
        sbni_claims_state done = {0};
        for (;;) {
            OK(sbni_claims_take(claims, ITEMS, &item));
            if (item < 0) break;
            mine++;
            snprintf(mark, sizeof mark, "%s.%d.%d", path, job, (int)item);
            FILE *f = fopen(mark, "wx"); /* fails where there is one */
            assert_non_null(f);
            fclose(f);
            OK(sbni_claims_finish(claims, 2, &done));
        }
        OK(sbn_group_agree(test_group, SBN_OK));
        OK(sbni_claims_finish(claims, 0, &done));
        assert_true(done.cost == 2.0 * ITEMS && done.done >= ITEMS);
        for (int i = 0; i < ITEMS; i++) {
            snprintf(mark, sizeof mark, "%s.%d.%d", path, job, i);
            assert_int_equal(access(mark, F_OK), 0);
        }
        OK(sbn_group_agree(test_group, SBN_OK));
        sbni_claims_end(&claims);
    }
}

static void nothing_after_a_stop(void **state)
{
    (void)state;
    char path[4096];
    snprintf(path, sizeof path, "%s/stopped-%d", test_folder(), test_rank);
    sbni_claims *claims;
    int64_t item;
    OK(sbni_claims_begin(path, &claims));
    OK(sbni_claims_take(claims, 10, &item));
    assert_int_equal(item, 0);
    OK(sbni_claims_stop(claims));
    OK(sbni_claims_take(claims, 10, &item));
    assert_int_equal(item, -1);
    sbni_claims_end(&claims);
    FAILS(SBN_E_IO, sbni_claims_join("/nowhere/claims", &claims));
    assert_null(claims);
}

/* No winner is named inside the noise. */
static void sentences_name_no_winner_in_noise(void **state)
{
    (void)state;
    static const struct {
        sbni_sample s;
        const char *text;
    } cases[] = {
        {{5, -0.02, 0.01, -0.03, -0.01}, "2.0 points lower than A (1.0 to 3.0)"},
        {{5, 0.02, 0.01, 0.01, 0.03}, "2.0 points higher than A (1.0 to 3.0)"},
        {{5, 0.02, 0.01, -0.01, 0.05},
         "the same as A within the noise (difference -1.0 to 5.0 points)"},
        {{1, 0.02, 0, 0.02, 0.02}, "2.0 points higher than A in one run"},
        {{0, (double)NAN, 0, 0, 0}, "not to be compared with A"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text;
        size_t bytes;
        FILE *f = open_memstream(&text, &bytes);
        sbni_put_difference(f, &cases[i].s, "A");
        fclose(f);
        assert_string_equal(text, cases[i].text);
        free(text);
    }
    assert_int_equal(sbni_all_hold((int[]){1, 1}, 2), 1);
    assert_int_equal(sbni_all_hold((int[]){1, 0}, 2), 0);
    assert_int_equal(sbni_all_hold((int[]){0, -1}, 2), -1);
}

/* Around the best of a method, to both sides, as far as the next gap. */
static void ranges_have_two_ends(void **state)
{
    (void)state;
    static const double errors[2][6] = {{0.9, 0.13, 0.12, 0.1, 0.125, 0.11},
                                        {0.9, 0.9, 0.9, 0.12, 0.2, 0.12}};
    static const double want[2][2] = {{0.2, 3.2}, {0.8, 0.8}};
    sbni_request r = {.study = &sbni_study_grid, .seeds = 1};
    r.vary = (sbni_texts){{"norm=batch,none", "lr=0.1,0.2,0.4,0.8,1.6,3.2"}, 2};
    OK(sbni_pairs_set(&r.given, "data", "synthetic"));
    sbni_design *d;
    OK(sbni_design_create(&r, &d));
    assert_int_equal(d->n_points, 12);
    sbni_record records[12] = {0};
    bool chosen[12];
    for (int i = 0; i < 12; i++) {
        int at = 0;
        while (d->points[i].x > 0.11 * pow(2, at)) at++;
        sbni_record_set(&records[d->points[i].trial[0]], "test_error",
                        errors[d->points[i].arm][at]);
        chosen[i] = true;
    }
    sbni_summary s = {.design = d, .records = records, .chosen = chosen};
    double range[2];
    for (int arm = 0; arm < 2; arm++) {
        assert_true(sbni_good_range(&s, arm, "test_error", 0.0301, range));
        for (int end = 0; end < 2; end++) CLOSE(range[end], want[arm][end], 1e-15);
    }
    assert_false(sbni_good_range(&s, 1, "test_error", 0.01, range));
    sbni_design_destroy(&d);
}

/* In the place of an evaluation: by the shift's name, what it finds. */
sbn_status __wrap_sbn_evaluate(const sbn_evaluate_config *cfg, sbn_group *group,
                               sbn_trainer_result *result);
sbn_status __wrap_sbn_evaluate(const sbn_evaluate_config *cfg, sbn_group *group,
                               sbn_trainer_result *result)
{
    (void)group;
    if (cfg->shift && !strcmp(cfg->shift, "contrast:0.25"))
        return sbni_fail(cfg->precise ? SBN_E_RANGE : SBN_E_NONFINITE, "not finite");
    *result = (sbn_trainer_result){.test_accuracy = cfg->precise ? 0.75 : 0.5};
    return SBN_OK;
}

/* A change of the images beyond what numbers hold: guessing, and told. */
static void a_change_without_a_result(void **state)
{
    (void)state;
    char out[4096];
    snprintf(out, sizeof out, "%s/shift", test_folder());
    sbni_request r = {.study = &sbni_study_shift, .quick = true, .seeds = 1};
    OK(sbni_pairs_read(&r.given, "data=synthetic limit-train=20 limit-test=20 batch=20 "
                                 "norm-batch=20 epochs=1 net=mlp"));
    sbni_design *d;
    sbni_record record;
    OK(sbni_design_create(&r, &d));
    int finite = d->n_shifts - 2;
    const sbni_trial_config cfg = {.out = out, .whom = ""};
    OK(sbni_trial_run(d, &d->trials[0], &cfg, test_group, &record));
    assert_string_equal(record.status, "done");
    CLOSE(sbni_record_get(&record, "stored/blur:2"), 0.5, 0);
    CLOSE(sbni_record_get(&record, "stored/contrast:0.25"), 0.9, 0);
    CLOSE(sbni_record_get(&record, "reestimated/contrast:0.25"), 0.9, 0);
    CLOSE(sbni_record_get(&record, "stored_mean"), (0.9 + 0.5 * finite) / (finite + 1),
          1e-15);
    CLOSE(sbni_record_get(&record, SBNI_NOT_FINITE), 2, 0);
    sbni_design_destroy(&d);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(quantiles_of_tables),
    cmocka_unit_test(intervals_by_hand),
    cmocka_unit_test(pairs_by_seed),
    cmocka_unit_test(settings_replace_each_other),
    cmocka_unit_test(presets_are_sound),
    cmocka_unit_test(nets_are_looked_at),
    cmocka_unit_test(grids_are_products),
    cmocka_unit_test(results_of_metrics),
    cmocka_unit_test(items_are_taken_once),
    cmocka_unit_test(nothing_after_a_stop),
    cmocka_unit_test(sentences_name_no_winner_in_noise),
    cmocka_unit_test(ranges_have_two_ends),
    cmocka_unit_test(a_change_without_a_result),
};
TEST_MAIN(tests)

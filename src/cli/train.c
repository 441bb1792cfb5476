#include <stdio.h>

#include "cli/comm.h"
#include "cli/commands.h"
#include "cli/signals.h"
#include "comm/group.h"
#include "options/train.h"
#include "syncbn/watch.h"

static const sbni_command command = {"train", "train [options]",
                                     "Train a net with statistics, gradients and "
                                     "evaluation shared out over all processes.",
                                     sbni_train_options, 0};

static void report(const sbni_train_settings *s, const sbn_trainer_result *r)
{
    printf("trained %s on %s: %lld steps in %.1f s, %.0f img/s\n", s->run.net,
           s->run.data, (long long)r->steps, r->seconds, r->images_per_s);
    printf("test accuracy %.4f, test loss %.4f\n", r->test_accuracy, r->test_loss);
    if (s->run.target > 0)
        printf("target accuracy %g %s\n", s->run.target,
               r->reached ? "reached" : "not reached");
    const sbn_model_memory *m = &r->memory;
    printf("memory of a process: %.1f MB of activations for backward, %.1f MB of work, "
           "%.1f MB of weights and gradients, %.1f MB of messages\n",
           1e-6 * (double)m->activations_bytes, 1e-6 * (double)m->work_bytes,
           1e-6 * (double)(m->parameters_bytes + m->gradients_bytes),
           1e-6 * (double)m->messages_bytes);
    if (s->run.norm == SBN_MODEL_NORM_RENORM) {
        double r_max, d_max;
        sbn_schedule_limits(&s->run.renorm, r->steps, &r_max, &d_max);
        printf("renorm limits at the last step: r_max %.4g, d_max %.4g%s\n", r_max, d_max,
               r_max == 1 && d_max == 0 ? ", which is batch norm; see --renorm-warmup"
                                        : "");
    }
    if (r->skipped)
        printf("%lld steps were not finite and are left out: lines of metrics.jsonl with "
               "\"nonfinite\":true\n",
               (long long)r->skipped);
    printf("results in %s\n", s->run.out);
}

static void warn(const char *line)
{
    fprintf(stderr, "syncbn: %s\n", line);
}

sbn_status sbni_command_train(int argc, char **argv, sbn_group *group)
{
    sbni_train_settings s = sbni_train_settings_default();
    sbni_arguments arguments;
    SBN_TRY(sbni_options_parse(&command, argc, argv, &s, &arguments, group));
    if (arguments.help) {
        if (sbn_group_rank(group) == 0) sbni_options_help(&command);
        return SBN_OK;
    }
    SBN_CHECK(!sbni_options_given(&command, &arguments, "epochs") || !s.run.steps,
              SBN_E_ARG, "--epochs and --steps: expected one of them, got both");
    SBN_TRY(sbni_train_settings_resolve(&s));
    s.run.warn = warn;
    sbn_watch_set_limit(group->watch, s.stall_limit_s);
    s.run.stop = sbni_listen_for_stop();
    sbn_trainer_result result;
    SBN_TRY(sbn_train(&s.run, group, &result));
    if (sbn_group_rank(group) == 0) report(&s, &result);
    return s.comm_report ? sbni_comm_report(group, s.run.out) : SBN_OK;
}

#include "options/train.h"

#include "nn/netfile.h"
#include "nn/normkind.h"

#define AT(field) offsetof(sbni_train_settings, field)

const sbni_option sbni_train_options[] = {
    {"What to train", SBNI_OPTION_TITLE, 0, 0, 0, 0, 0, 0, 0},
    {"net", SBNI_OPTION_TEXT, AT(run.net), "NAME|FILE.net",
     SBNI_NET_NAMES ", or a file (default cnn)", 0, 0, 0, 0},
    {"data", SBNI_OPTION_TEXT, AT(run.data), "DIR|NAME",
     "fashion-mnist, synthetic, a folder with the four IDX files, plain or .gz, or "
     "cifar10:DIR with CIFAR-10's .bin files, 3x32x32 (default fashion-mnist)",
     0, 0, 0, 0},
    {"limit-train", SBNI_OPTION_INT, AT(run.limit_train), "N",
     "use the first N training samples only (default all)", 0, 1, 0, 0},
    {"limit-test", SBNI_OPTION_INT, AT(run.limit_test), "N",
     "use the first N test samples only (default all)", 0, 1, 0, 0},
    {"Sizes; the number of processes changes none of them", SBNI_OPTION_TITLE, 0, 0, 0, 0,
     0, 0, 0},
    {"batch", SBNI_OPTION_INT, AT(run.batch), "N",
     "samples per step, over all processes (default 64)", 0, 1, 0, 0},
    {"norm-batch", SBNI_OPTION_INT, AT(run.norm_batch), "N|all",
     "samples that share one set of statistics, up to the batch (default all)", "all", 1,
     SBN_NORM_BATCH_ALL, 0},
    {"drop-last", SBNI_OPTION_FLAG, AT(run.drop_last), 0,
     "leave out the last short batch of an epoch (default: train it)", 0, 0, 0, 0},
    {"classes", SBNI_OPTION_INT, AT(run.classes), "K",
     "draw every norm batch from K classes, equally many samples of each; an epoch then "
     "has whole batches only (default: from all classes, at random)",
     0, 1, 0, 0},
    {"augment-shift", SBNI_OPTION_INT, AT(run.augment_shift), "PIXELS",
     "move every training image by up to so many pixels either way, anew in each epoch "
     "(default 0)",
     0, 0, 0, 0},
    {"augment-flip", SBNI_OPTION_FLAG, AT(run.augment_flip), 0,
     "show training images mirrored half of the times", 0, 0, 0, 0},
    {"shift", SBNI_OPTION_TEXT, AT(run.shift), SBNI_SHIFT_UNIT,
     "change the test images, as if they came from another source: " SBNI_SHIFT_HELP, 0,
     0, 0, 0},
    {"Normalization", SBNI_OPTION_TITLE, 0, 0, 0, 0, 0, 0, 0},
    {"norm", SBNI_OPTION_TEXT, AT(norm), SBNI_NORMKIND_CHOICES,
     "batch norm, batch renormalization, group norm with G groups of channels, or the "
     "net without its norm layers (default batch)",
     0, 0, 0, 0},
    {"norm-eps", SBNI_OPTION_REAL, AT(run.norm_eps), "X",
     "added to the variance inside the root (default 1e-5)", 0, 1e-30, 0, 0},
    {"norm-momentum", SBNI_OPTION_REAL, AT(run.norm_momentum), "X|none",
     "weight of the new value in running statistics; none: plain average (default 0.1)",
     "none", 0, SBN_MOMENTUM_CUMULATIVE, 1},
    {"norm-running", SBNI_OPTION_CHOICE, AT(running), "batch|norm-batches",
     "running statistics follow the whole batch, or the mean of what its norm batches "
     "saw "
     "(default batch)",
     "batch|norm-batches", 0, 0, 0},
    {"renorm-r-max", SBNI_OPTION_REAL, AT(run.renorm.r_max), "X",
     "renorm: limit of r in the end (default 3)", 0, 1, 0, 0},
    {"renorm-d-max", SBNI_OPTION_REAL, AT(run.renorm.d_max), "X",
     "renorm: limit of d in the end (default 5)", 0, 0, 0, 0},
    {"renorm-warmup", SBNI_OPTION_INT, AT(run.renorm.warmup), "STEPS",
     "renorm: batch norm up to this step, limits grow after it (default 5000)", 0, 0, 0,
     0},
    {"renorm-r-steps", SBNI_OPTION_INT, AT(run.renorm.r_steps), "STEPS",
     "renorm: step that reaches r-max (default 40000)", 0, 0, 0, 0},
    {"renorm-d-steps", SBNI_OPTION_INT, AT(run.renorm.d_steps), "STEPS",
     "renorm: step that reaches d-max (default 25000)", 0, 0, 0, 0},
    {"Optimization", SBNI_OPTION_TITLE, 0, 0, 0, 0, 0, 0, 0},
    {"epochs", SBNI_OPTION_INT, AT(run.epochs), "E", "passes over the data (default 5)",
     0, 1, 0, 0},
    {"steps", SBNI_OPTION_INT, AT(run.steps), "S", "steps, in place of epochs", 0, 1, 0,
     0},
    {"lr", SBNI_OPTION_REAL, AT(run.schedule.lr), "X", "learning rate (default 0.05)", 0,
     0, 0, 0},
    {"schedule", SBNI_OPTION_CHOICE, AT(schedule), "constant|step|cosine",
     "of the learning rate (default constant)", "constant|step|cosine", 0, 0, 0},
    {"warmup", SBNI_OPTION_INT, AT(run.schedule.warmup), "STEPS",
     "steps of linear growth of the rate at the start (default 0)", 0, 0, 0, 0},
    {"lr-every", SBNI_OPTION_INT, AT(run.schedule.every), "STEPS",
     "schedule step: between two reductions (default 1000)", 0, 1, 0, 0},
    {"lr-factor", SBNI_OPTION_REAL, AT(run.schedule.factor), "X",
     "schedule step: factor of each reduction (default 0.1)", 0, 0, 0, 0},
    {"optimizer", SBNI_OPTION_CHOICE, AT(optimizer), "sgd|adam|adamw",
     "stochastic gradient descent with momentum, Adam, or Adam with weight decay apart "
     "from the gradient (default sgd)",
     "sgd|adam|adamw", 0, 0, 0},
    {"momentum", SBNI_OPTION_REAL, AT(run.momentum), "X", "sgd: 0 to 1 (default 0.9)", 0,
     0, 0, 1},
    {"nesterov", SBNI_OPTION_FLAG, AT(run.nesterov), 0, "sgd: look ahead by the momentum",
     0, 0, 0, 0},
    {"adam-beta1", SBNI_OPTION_REAL, AT(run.adam_beta1), "X",
     "adam: weight of the old mean of gradients, below 1 (default 0.9)", 0, 0, 0, 1},
    {"adam-beta2", SBNI_OPTION_REAL, AT(run.adam_beta2), "X",
     "adam: of the old mean of squares, below 1 (default 0.999)", 0, 0, 0, 1},
    {"adam-eps", SBNI_OPTION_REAL, AT(run.adam_eps), "X",
     "adam: added to the root of the mean square (default 1e-8)", 0, 1e-30, 0, 0},
    {"label-smoothing", SBNI_OPTION_REAL, AT(run.label_smoothing), "X",
     "weight of all classes alike in the targets of training, below 1 (default 0)", 0, 0,
     0, 1},
    {"dropout", SBNI_OPTION_REAL, AT(run.dropout), "P|net",
     "rate of the net's dropout lines, below 1; of a net without any: of dropout on what "
     "enters its last linear layer (default net: as its lines say)",
     "net", 0, SBN_DROPOUT_NET, 1},
    {"init-scale", SBNI_OPTION_REAL, AT(run.init_scale), "X",
     "factor of the initial weights of conv and linear layers (default 1)", 0, 1e-30, 0,
     0},
    {"init-sigma", SBNI_OPTION_REAL, AT(run.init_sigma), "X",
     "draw these weights from a Gaussian of this deviation, with biases 0 (default: "
     "uniform in 1/root of the inputs, biases too)",
     0, 1e-30, 0, 0},
    {"weight-decay", SBNI_OPTION_REAL, AT(run.weight_decay), "X",
     "of weight matrices (default 0)", 0, 0, 0, 0},
    {"decay-all", SBNI_OPTION_FLAG, AT(run.decay_all), 0,
     "weight decay also on gamma, beta and biases", 0, 0, 0, 0},
    {"seed", SBNI_OPTION_SEED, AT(run.seed), "N",
     "of initial weights, order of samples and synthetic data (default 1)", 0, 0, 0, 0},
    {"Speed; no bit of the results depends on it", SBNI_OPTION_TITLE, 0, 0, 0, 0, 0, 0,
     0},
    {"no-overlap", SBNI_OPTION_FLAG, AT(no_overlap), 0,
     "wait for each message before computing on (default: backward goes on while sums "
     "travel, where they go by MPI)",
     0, 0, 0, 0},
    {"Results", SBNI_OPTION_TITLE, 0, 0, 0, 0, 0, 0, 0},
    {"out", SBNI_OPTION_TEXT, AT(run.out), "DIR",
     "folder for metrics.jsonl, run.json, model.safetensors, checkpoint.safetensors "
     "(default out/train)",
     0, 0, 0, 0},
    {"resume", SBNI_OPTION_FLAG, AT(run.resume), 0,
     "go on from the newest checkpoint in --out that is whole, when there is one", 0, 0,
     0, 0},
    {"checkpoint-every", SBNI_OPTION_INT, AT(run.checkpoint_every), "STEPS",
     "steps between checkpoints (default: at the end of each epoch)", 0, 1, 0, 0},
    {"check-every", SBNI_OPTION_INT, AT(run.check_every), "STEPS",
     "steps between comparisons of the weights that processes hold (default: before each "
     "checkpoint, where they are compared in any case)",
     0, 1, 0, 0},
    {"eval-every", SBNI_OPTION_INT, AT(run.eval_every), "STEPS",
     "steps between evaluations; there is always one behind the last step (default: at "
     "the end of each epoch)",
     0, 1, 0, 0},
    {"eval-train", SBNI_OPTION_INT, AT(run.eval_train), "N",
     "evaluations cover the first N training samples too (default 0)", 0, 0, 0, 0},
    {"precise-stats", SBNI_OPTION_INT, AT(run.precise), "N|all",
     "end with an evaluation by the exact statistics of the first N training samples in "
     "the place of running averages, which the saved model keeps (default 0: none)",
     "all", 0, SBN_PRECISE_ALL, 0},
    {"target", SBNI_OPTION_REAL, AT(run.target), "ACCURACY",
     "end behind the first evaluation whose test accuracy is at least this, 0 to 1 "
     "(default: none)",
     0, 0, 0, 1},
    {"log-every", SBNI_OPTION_INT, AT(run.log_every), "STEPS",
     "steps between records of a step in metrics.jsonl (default 1)", 0, 1, 0, 0},
    {"track", SBNI_OPTION_TEXT, AT(run.track), "LAYER[:UNIT]",
     "record the 15th, 50th and 85th percentile, over the samples of a batch, of what "
     "one unit of a named layer puts out in training, before the relu or sigmoid behind "
     "it; UNIT is an element of channels x height x width (default 0)",
     0, 0, 0, 0},
    {"track-every", SBNI_OPTION_INT, AT(run.track_every), "STEPS",
     "steps between these records (default 100)", 0, 1, 0, 0},
    {"stat-noise", SBNI_OPTION_FLAG, AT(run.stat_noise), 0,
     "behind each evaluation, record for each norm layer how far the last step's "
     "statistics of norm batches lay from those of the whole batch",
     0, 0, 0, 0},
    {"noise-scale", SBNI_OPTION_INT, AT(run.noise_scale), "STEPS",
     "steps between estimates of the noise scale of gradients, from those of norm "
     "batches and of the batch; norm batches must be half the batch or smaller (default: "
     "none)",
     0, 1, 0, 0},
    {"max-time", SBNI_OPTION_REAL, AT(run.max_time_s), "SECONDS",
     "save and end with exit code 75 behind the first step after so long; so do the "
     "signals USR1, TERM and INT, and a file named halt in the folder (default: none)",
     0, 1e-3, 0, 0},
    {"nonfinite", SBNI_OPTION_CHOICE, AT(nonfinite), "stop|skip",
     "what a step does whose loss, statistics or gradients are NaN, infinite or too "
     "large: "
     "end the run with exit code 77, or be left out, with weights, statistics and "
     "optimizer as they were before it (default stop)",
     "stop|skip", 0, 0, 0},
    {"max-skips", SBNI_OPTION_INT, AT(max_skips), "N",
     "nonfinite skip: end the run where more such steps follow each other (default 10)",
     0, 1, 0, 0},
    SBNI_STALL_OPTION(AT(stall_limit_s)),
    {"progress", SBNI_OPTION_CHOICE, AT(progress), "auto|tty|lines|none",
     "how progress is shown on standard error (default auto)", "auto|tty|lines|none", 0,
     0, 0},
    {"comm-report", SBNI_OPTION_FLAG, AT(comm_report), 0,
     "at the end, a table of what messages cost: of each layer and phase their number, "
     "bytes, seconds waited, the process that the others wait for, and the time of one, "
     "measured and predicted from latency and bandwidth; also to comm.json",
     0, 0, 0, 0},
    {0},
};

sbni_train_settings sbni_train_settings_default(void)
{
    sbni_train_settings s = {.run = sbn_trainer_config_default(), .norm = "batch"};
    s.max_skips = 10;
    s.stall_limit_s = SBNI_STALL_LIMIT_S;
    s.run.out = "out/train";
    s.run.schedule.every = 1000;
    return s;
}

sbn_status sbni_train_settings_resolve(sbni_train_settings *s)
{
    sbn_status parsed = sbni_normkind_parse(s->norm, &s->run.norm, &s->run.norm_groups);
    if (parsed != SBN_OK) return sbni_fail_in(parsed, "--norm");
    s->run.schedule.kind = (sbn_schedule_kind)s->schedule;
    s->run.norm_running = (sbn_running)s->running;
    s->run.optimizer = (sbn_optimizer_kind)s->optimizer;
    s->run.max_skips = s->nonfinite ? s->max_skips : 0;
    if (s->no_overlap) s->run.overlap = SBN_OVERLAP_NEVER;
    s->run.progress = (sbn_progress_style)s->progress;
    return SBN_OK;
}

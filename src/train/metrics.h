/*
 * metrics.jsonl: one JSON object a line. Losses are printed so that they read back to the
 * same double (shortest of %.15g, %.16g, %.17g that does); a non-finite number is null
 * with "nonfinite":true beside it.
 */
#ifndef SBNI_METRICS_H
#define SBNI_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/status.h"
#include "norm/noise.h"
#include "syncbn/norm.h"
#include "train/gradnoise.h"

typedef struct sbni_metrics sbni_metrics;

/* What an evaluation finds: mean loss, and share of samples that are right. */
typedef struct sbni_score {
    double loss, accuracy;
} sbni_score;

/*
 * Open the file for appending. resume_step < 0 starts an empty file. Otherwise lines of
 * an earlier run are kept up to that step: lines with a step ≤ resume_step stay byte for
 * byte; later ones, those without a step ("done") and what a crash left unreadable at the
 * end go; the file is replaced atomically; a missing file is fine.
 * Errors: SBN_E_IO, SBN_E_MEMORY, SBN_E_DATA (an unreadable line before one to keep).
 */
sbn_status sbni_metrics_open(const char *path, int64_t resume_step,
                             sbni_metrics **metrics);

/* {"kind":"step","step":1,"epoch":1,"loss":2.3,"lr":0.05}
 * renorm: NULL, or what its limits did: ,"r_max":1.5,"d_max":0.5,"r_clipped":0.1,
 * "d_clipped":0.25 */
sbn_status sbni_metrics_step(sbni_metrics *metrics, int64_t step, int64_t epoch,
                             double loss, double lr, const sbn_norm_clipped *renorm);

/* {"kind":"eval","epoch":1,"step":938,"test_loss":0.4,"test_accuracy":0.85}
 * train: NULL, or of training samples: ,"train_loss":0.3,"train_accuracy":0.9 */
sbn_status sbni_metrics_eval(sbni_metrics *metrics, int64_t step, int64_t epoch,
                             const sbni_score *test, const sbni_score *train);

/* The same with precise statistics of so many training samples:
 * {"kind":"precise","step":4690,"samples":60000,"test_loss":0.4,"test_accuracy":0.85} */
sbn_status sbni_metrics_precise(sbni_metrics *metrics, int64_t step, int64_t samples,
                                const sbni_score *test, const sbni_score *train);

/* {"kind":"activations","step":20,"layer":"dense3_bn","unit":0,"p15":-0.9,"p50":0.1,
 * "p85":1.1}; p: these three */
sbn_status sbni_metrics_activations(sbni_metrics *metrics, int64_t step,
                                    const char *layer, int64_t unit, const double p[3]);

/* {"kind":"statistics","step":938,"layer":"conv2_bn","mean_noise":0.1,"var_noise":0.2} */
sbn_status sbni_metrics_statistics(sbni_metrics *metrics, int64_t step, const char *layer,
                                   sbni_noise noise);

/* {"kind":"noise_scale","step":20,"small":16,"big":64,"grad_sq":0.5,"trace":40,
 * "noise_scale":80} */
sbn_status sbni_metrics_noise_scale(sbni_metrics *metrics, int64_t step,
                                    const sbni_noise_scale *noise);

/* {"kind":"done","steps":4690,"seconds":12.5,"images_per_s":24000,"test_accuracy":0.89}
 * target > 0: ,"target":0.88,"reached":true */
sbn_status sbni_metrics_done(sbni_metrics *metrics, int64_t steps, double seconds,
                             double images_per_s, double test_accuracy, double target,
                             bool reached);

/* Lines are buffered; flush makes them visible (and, with sync, durable: before a
 * checkpoint that will rely on them). A short write is SBN_E_IO, not silence, here and in
 * the functions above, which flush a full buffer; what was not written stays buffered
 * for the next flush. A pipe without reader also raises SIGPIPE, which the program has to
 * ignore. */
sbn_status sbni_metrics_flush(sbni_metrics *metrics, int sync);

/* Flush and close, also when that fails; NULL is fine. */
sbn_status sbni_metrics_close(sbni_metrics **metrics);

#endif

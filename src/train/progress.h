/* The progress line: redrawn in place on a terminal, a line now and then elsewhere. One
 * process shows it. */
#ifndef SBNI_PROGRESS_H
#define SBNI_PROGRESS_H

#include <stdint.h>

#include "core/status.h"
#include "syncbn/trainer.h"

typedef struct sbni_progress sbni_progress;

/* steps is the last step of the run, first the step it starts after (resume). steps 0 or
 * epochs 0: not known, and not shown. Errors: SBN_E_MEMORY. */
sbn_status sbni_progress_create(sbn_progress_style style, int64_t first, int64_t steps,
                                int64_t epochs, sbni_progress **progress);

/*
 * After a step of that many images:
 * epoch 2/5 · step 1200/4690 · loss 0.4312 · 24,100 img/s · 1 min 20 s left
 * Rate and time left come from the last seconds of training, evaluations not counted. On
 * a terminal the line is cut at the right margin (COLUMNS or 80 where it can't be asked).
 */
void sbni_progress_step(sbni_progress *progress, int64_t step, int64_t epoch, double loss,
                        int64_t images);

/* After an evaluation: a line that stays: epoch 1/5: test loss 0.45, test accuracy 0.842
 * step > 0, for one within an epoch: epoch 1/5 · step 400/4690: test loss … */
void sbni_progress_eval(sbni_progress *progress, int64_t epoch, int64_t step,
                        double test_loss, double test_accuracy);

/* Clear the line that is being redrawn, so that other text can be printed; and free. NULL
 * is fine. */
void sbni_progress_destroy(sbni_progress **progress);

#endif

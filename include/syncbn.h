/** Everything of syncbn. A program that only wants the layer can include syncbn/norm.h
 * alone. */
#ifndef SYNCBN_H
#define SYNCBN_H

#include "syncbn/data.h"
#include "syncbn/group.h"
#include "syncbn/groupnorm.h"
#include "syncbn/model.h"
#include "syncbn/norm.h"
#include "syncbn/optim.h"
#include "syncbn/state.h"
#include "syncbn/status.h"
#include "syncbn/tensor.h"
#include "syncbn/trainer.h"
#include "syncbn/watch.h"

#endif

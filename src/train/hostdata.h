/* Halves of a data set that the processes of a host share: found, checked and loaded
 * together. */
#ifndef SBNI_HOSTDATA_H
#define SBNI_HOSTDATA_H

#include "comm/hostmem.h"
#include "syncbn/data.h"
#include "syncbn/trainer.h"

typedef struct sbni_hostdata {
    sbn_dataset *dataset;
    sbn_dataset_info info;
    uint64_t digest; /* of all pixels and labels; of the seed for synthetic data */
    sbni_hostmem memory;
    int64_t bytes; /* pixels and labels; the digest lies behind them in the memory */
} sbni_hostdata;

/*
 * Open n halves into data [n]. Each is read and digested by one process of a host,
 * another for the next where there is one; the rest sleep. Close all of data, also on
 * failure.
 * @collective over the group. A failure of one process is a failure of all.
 */
sbn_status sbni_hostdata_open(const char *spec, const sbn_split *splits, int n,
                              uint64_t seed, sbn_group *group, sbni_hostdata *data);
void sbni_hostdata_close(sbni_hostdata *data);

/* The order in which a run visits the first n samples of its training half. SBN_E_ARG.
 * Local. */
sbn_status sbni_hostdata_sampler(const sbni_hostdata *data, const sbn_trainer_config *cfg,
                                 int64_t n, sbn_sampler **sampler);

#endif

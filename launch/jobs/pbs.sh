#!/bin/bash
# Purpose   one training on two nodes of PBS, two processes on each
# Command   qsub launch/jobs/pbs.sh
#           from the top folder of a built tree that all nodes see; more options of
#           syncbn train: qsub -v 'OPTIONS=--seed 2' launch/jobs/pbs.sh
# Cost      4 cores for less than a minute
# Expected  out/pbs-JOB/ with a test accuracy of about 0.89
# Checked   with a node file made by hand, by tests/launch_jobs.sh (dry run) and by
#           tests/cluster_hosts.sh (two hosts); the test machine has no PBS
#PBS -N syncbn
#PBS -l select=2:ncpus=2:mpiprocs=2
#PBS -l walltime=00:10:00
#PBS -j oe
# When the time is over PBS sends TERM to mpirun as well, which leaves no time to save; so the
# run stops by itself a minute before. An mpirun that was built without PBS, as Debian's is,
# reaches the nodes by ssh, which must need no password.

cd "$PBS_O_WORKDIR" || exit 74
read -ra more <<<"${OPTIONS-}"
exec launch/run --max-restarts 2 syncbn train --net cnn --data fashion-mnist --batch 64 \
  --lr 0.05 --epochs 5 --progress lines --max-time 540 --out "out/pbs-${PBS_JOBID%%.*}" "${more[@]}"

#!/bin/bash
# Purpose   one training on the hosts of a file, reached by ssh
# Command   launch/jobs/hosts.sh HOSTFILE [more options of syncbn train]
#           from the top folder of a built tree that has the same path on all hosts, data
#           and results included; hosts.example shows a file
# Cost      4 cores for less than a minute
# Expected  out/hosts/ with a test accuracy of about 0.89
# Checked   by tests/cluster_hosts.sh, on two hosts made of network namespaces, by sshd
# Hosts with several networks: add --interface 10.1.0.0/16, say, to launch/run. Another ssh
# port or user: OMPI_MCA_plm_rsh_args='-p 2222 -l me' in the environment.

hosts=${1:?which file of hosts? See launch/jobs/hosts.example}
shift
exec launch/run --hostfile "$hosts" --max-restarts 2 syncbn train --net cnn \
  --data fashion-mnist --batch 64 --lr 0.05 --epochs 5 --progress lines --out out/hosts "$@"

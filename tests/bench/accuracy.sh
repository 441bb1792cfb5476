#!/usr/bin/env bash
# Test accuracy on Fashion-MNIST over seeds: batch 64, lr 0.05, momentum 0.9, 5 epochs.
# Weights do not depend on the number of processes, so neither does this table.
set -euo pipefail
cd "$(dirname "$0")/../.."
run() { # net norm seeds...
  local net=$1 norm=$2 seed
  shift 2
  printf '%-8s --norm %-6s' "$net" "$norm"
  for seed in "$@"; do
    launch/local -np 2 syncbn train --net "$net" --norm "$norm" --data fashion-mnist --batch 64 \
      --lr 0.05 --momentum 0.9 --epochs 5 --seed "$seed" --progress none \
      --out "out/accuracy/$net-$norm-$seed" |
      sed -n 's/^test accuracy \([0-9.]*\),.*/\1/p'
  done | awk '{ printf " %s", $1; sum += $1 } END { printf "  mean %.4f\n", sum / NR }'
}
run cnn batch 1 2 3
run cnn none 1 2 3
run article batch 1 2 3 4 5

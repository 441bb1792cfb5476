#!/usr/bin/env bash
# Batch normalization of syncbn beside oneDNN, PyTorch and plain C loops, in one run: in
# each round every contender is timed on a shape before the next shape comes, the order
# turning from round to round. Prints tables; fails where a peer is faster, but for loops
# with sums in double, which are there to tell what those cost.
set -euo pipefail

usage() {
  cat <<'END'
usage: tests/bench/compare_norm.sh [-r ROUNDS] [-p PAIRS] [-t THREADS] [-s "SHAPE …"]
                                   [-o FILE]
  -r  rounds (5)
  -p  pairs of a call and a memcpy in each measurement (20)
  -t  threads (1)
  -s  shapes NxCxHxW or NxC (the norms of ResNet-50 at batch 32, of our nets, and others)
  -o  every measurement as a JSON line (out/bench/compare_norm.jsonl)
environment:
  SYNCBN  the program (build/syncbn)
  PYTHON  Pythons that can import torch, one or several ("python3")
  CC      compiler of the C peers (cc)
exit status: 0 nowhere slower than the best peer in its best plain layout, 1 somewhere
slower, 64 wrong use, 70 a contender failed, 77 nothing to compare
END
}

# ResNet-50; ours; matrices and odd numbers of channels.
shapes="32x64x112x112 32x64x56x56 32x256x56x56 32x128x56x56 32x128x28x28 32x512x28x28
  32x256x28x28 32x256x14x14 32x1024x14x14 32x512x14x14 32x512x7x7 32x2048x7x7
  64x20x8x8 256x20x8x8 64x50 256x50 64x100 256x100 4096x256 16x67x31x31"
rounds=5 pairs=20 threads=1 results=out/bench/compare_norm.jsonl
while getopts r:p:t:s:o:h option; do
  case $option in
    r) rounds=$OPTARG ;;
    p) pairs=$OPTARG ;;
    t) threads=$OPTARG ;;
    s) shapes=$OPTARG ;;
    o) results=$OPTARG ;;
    h) usage; exit 0 ;;
    *) usage >&2; exit 64 ;;
  esac
done
for number in "$rounds" "$pairs" "$threads"; do
  if ! [[ $number =~ ^[1-9][0-9]*$ ]]; then
    echo "compare_norm: '$number' is not a count" >&2
    exit 64
  fi
done
for shape in $shapes; do
  if ! [[ $shape =~ ^[1-9][0-9]*x[1-9][0-9]*(x[1-9][0-9]*x[1-9][0-9]*)?$ ]]; then
    echo "compare_norm: '$shape' is not a shape such as 64x20x8x8 or 4096x256" >&2
    exit 64
  fi
done

cd "$(dirname "$0")/../.."
syncbn=${SYNCBN:-build/syncbn}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$(dirname "$results")"
: >"$results"
export OMP_NUM_THREADS=$threads OPENBLAS_NUM_THREADS=1

# --- contenders: each a function that times one shape and prints JSON lines ---

time_syncbn() { # shape
  "$syncbn" bench norm --json --shape "$1" --threads "$threads" --pairs "$pairs"
}
time_c() { # shape program
  "$scratch/$2" --shape "$1" --threads "$threads" --pairs "$pairs"
}
time_torch() { # shape python
  "$2" -B tests/bench/peers/torch_norm.py --shape "$1" --threads "$threads" --pairs "$pairs"
}

compile() { # source program options and libraries
  local source=$1 program=$2
  shift 2
  "${CC:-cc}" -std=c11 -D_GNU_SOURCE "tests/bench/peers/$source.c" tests/bench/peers/pairs.c \
    -fopenmp -o "$scratch/$program" "$@" -lm 2>"$scratch/log"
}

contenders=()
if "$syncbn" bench norm --json --shape 2x8 --threads 1 --pairs 1 >"$scratch/log" 2>&1; then
  contenders+=(syncbn)
else
  echo "syncbn: skipped, $syncbn bench norm does not run: $(head -n 1 "$scratch/log")" >&2
fi
if compile onednn_norm onednn_norm -O2 -ldnnl; then
  contenders+=("c onednn_norm")
else
  echo "oneDNN: skipped, its program can't be built (Debian: libdnnl-dev)" >&2
fi
if compile loop_norm loop_norm -O3 -march=native &&
  compile loop_norm loop64_norm -O3 -march=native -DSUM=double; then
  contenders+=("c loop_norm" "c loop64_norm")
else
  echo "loop: skipped, it can't be built: $(grep -m 1 error "$scratch/log")" >&2
fi
for python in ${PYTHON:-python3}; do
  if "$python" -c 'import torch' 2>/dev/null; then
    contenders+=("torch $python")
  else
    echo "torch: skipped, $python can't import it (PYTHON chooses others)" >&2
  fi
done

count=${#contenders[@]}
for ((round = 1; round <= rounds; round++)); do
  for shape in $shapes; do
    for ((i = 0; i < count; i++)); do
      read -r how which <<<"${contenders[(i + round - 1) % count]}"
      if ! "time_$how" "$shape" ${which:+"$which"} >"$scratch/lines" 2>"$scratch/log"; then
        echo "compare_norm: $how $which failed on $shape:" >&2
        tail -n 20 "$scratch/log" >&2
        exit 70
      fi
      sed "s/^{/{\"round\":$round,/" "$scratch/lines" >>"$results"
    done
  done
  echo "round $round of $rounds; load $(cut -d' ' -f1 /proc/loadavg)" >&2
done

python3 tests/bench/norm_table.py "$results"

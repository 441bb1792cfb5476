#!/usr/bin/env bash
# Weights and losses do not depend on the number of processes or threads, nor on how MPI
# adds and carries the messages.
set -u
. "$(dirname "$0")/program_lib.sh"

mkdir data
"$make_idx" data 150 40 || exit 1
train=(train --data data --progress none --lr 0.05)

# Under sanitizers, where each run is slow, fewer process counts.
counts=(1 2 3 4 7)
if [ "$slowness" != 1 ]; then counts=(1 3); fi

# batch 64 leaves 22 of 150 samples for the last step of an epoch, 60 leaves 30, 37 leaves 2
for net in cnn mlp; do
  for batch in 64 60 37; do
    for np in "${counts[@]}"; do
      out=$net-$batch-$np
      must $np "${train[@]}" --net $net --batch $batch --epochs 8 --out "$out" || continue
      if [ $np = 1 ]; then
        check "$net batch $batch: every step is in the metrics" \
          test "$(grep -c '"step","step"' "$out/metrics.jsonl")" = $((8 * (149 / batch + 1)))
        continue
      fi
      check "trap_12_33: $net batch $batch: np=$np as np=1" same_run "$net-$batch-1" "$out"
    done
  done
done

# A test that could not fail would prove nothing.
must 2 "${train[@]}" --batch 64 --epochs 8 --seed 2 --out seed2
check "another seed gives other weights" \
  differs cnn-64-1/model.safetensors seed2/model.safetensors
check "another seed gives other losses" other_losses cnn-64-1 seed2
check "a run that differs is seen to differ" other_run cnn-64-1 seed2

for np in "${counts[@]}"; do
  for net in cnn mlp; do
    OMP_NUM_THREADS=2 must $np "${train[@]}" --net $net --batch 60 --epochs 8 \
      --out "threads-$net-$np"
    check "$net, two threads at np=$np as one at np=1" same_run $net-60-1 "threads-$net-$np"
  done
done

# more processes than samples in a step or in the test
for np in 1 7; do
  OPENBLAS_NUM_THREADS=$np must $np "${train[@]}" --batch 2 --limit-train 20 --limit-test 1 \
    --steps 30 --out "tiny-$np"
done
check "batches of two at np=7 as np=1" same_run tiny-1 tiny-7

# variant NAME OPTION...: the same at 1, 3, 4 processes, and with two threads at 2; other
# than the plain run
variant() {
  local name=$1 np
  shift
  OMP_NUM_THREADS=2 must 2 "${train[@]}" --batch 64 --epochs 4 --out "$name-2" "$@" || return
  for np in 1 3 4; do
    must $np "${train[@]}" --batch 64 --epochs 4 --out "$name-$np" "$@" || return
  done
  check "$*: np=2, two threads, as np=1" same_run "$name-1" "$name-2"
  check "$*: np=3 as np=1" same_run "$name-1" "$name-3"
  check "$*: np=4 as np=1" same_run "$name-1" "$name-4"
  check "$*: other losses than without" \
    other_losses plain-1 "$name-1"
}
must 1 "${train[@]}" --batch 64 --epochs 4 --out plain-1
variant norm16 --norm-batch 16
variant norm10 --norm-batch 10
variant norm24 --norm-batch 24
variant norm2-mlp --norm-batch 2 --net mlp
variant running --norm-batch 10 --norm-running norm-batches
check 'running statistics of norm batches change no weight, but statistics' \
  same <(field loss norm10-1/metrics.jsonl) <(field loss running-1/metrics.jsonl)
check 'and they do change' differs norm10-1/model.safetensors running-1/model.safetensors

# Precise statistics: layer by layer, so they are a fixed point of their own estimate; how
# the data was cut does not show.
for np in 1 2 4; do
  must $np eval plain-1 --data data --precise-stats all --save precise-$np.safetensors
done
check 'precise statistics: np=2 as np=1' same precise-1.safetensors precise-2.safetensors
check 'precise statistics: np=4 as np=1' same precise-1.safetensors precise-4.safetensors
check 'precise statistics are not the running ones' \
  differs precise-1.safetensors plain-1/model.safetensors
must 3 eval precise-1.safetensors --data data --precise-stats all --save again.safetensors
check 'precise statistics of precise statistics: the same' \
  same precise-1.safetensors again.safetensors
must 3 eval plain-1 --data data --precise-stats 64 --save part.safetensors
check 'precise statistics of fewer samples: others' \
  differs precise-1.safetensors part.safetensors
# the same of shifted test inputs: what is saved and the losses, at any np; labels have no
# part in it
evaluated() { sed -n 's/.*test accuracy \([^,]*, test loss [^,]*\),.*/\1/p' stdout.txt; }
for np in 1 2 4; do
  must $np eval plain-1 --data data --shift contrast:0.4,noise:0.1 --precise-stats all \
    --precise-from test --save from-test-$np.safetensors
  evaluated >from-test-$np.txt
  must $np eval plain-1 --data data --shift contrast:0.4,noise:0.1
  evaluated >shifted-$np.txt
done
for np in 2 4; do
  check "statistics of shifted test inputs: np=$np as np=1" \
    same from-test-1.safetensors from-test-$np.safetensors
  check "their evaluation: np=$np as np=1" same from-test-1.txt from-test-$np.txt
  check "evaluation of shifted inputs: np=$np as np=1" same shifted-1.txt shifted-$np.txt
done
check 'statistics of test inputs are not those of training inputs' \
  differs from-test-1.safetensors precise-1.safetensors
check 'they change the evaluation' differs from-test-1.txt shifted-1.txt
must 2 eval from-test-1.safetensors --data data --shift contrast:0.4,noise:0.1
evaluated >again.txt
check 'saved statistics evaluate as those just made' same from-test-1.txt again.txt
mkdir unlabelled && cp data/* unlabelled
for at in $(seq 8 47); do put_bytes unlabelled/t10k-labels-idx1-ubyte "$at" '\3'; done
must 2 eval plain-1 --data unlabelled --shift contrast:0.4,noise:0.1 --precise-stats all \
  --precise-from test --save unlabelled.safetensors
check 'labels have no part in statistics of test inputs' \
  same from-test-1.safetensors unlabelled.safetensors
must 2 eval plain-1 --data data --shift contrast:0.4,noise:0.1 --precise-stats all \
  --precise-from test --limit-test 20 --save some.safetensors
must 2 eval plain-1 --data data --shift contrast:0.4,noise:0.1 --precise-stats 20 \
  --precise-from test --save twenty.safetensors
check 'all of a limited test half is what the limit leaves' \
  same some.safetensors twenty.safetensors
# waiting for every message changes nothing: norms above weights, none, several norm batches
for np in 1 2 4; do
  OMP_NUM_THREADS=$((1 + np / 2)) must $np "${train[@]}" --batch 60 --epochs 8 --no-overlap \
    --out blocking-$np
  check "--no-overlap at np=$np as np=1" same_run cnn-60-1 blocking-$np
  must $np "${train[@]}" --net mlp --batch 64 --norm-batch 24 --epochs 4 --no-overlap \
    --out blocking-mlp-$np
done
SBN_SUMS=mpi must 3 "${train[@]}" --net mlp --batch 64 --norm-batch 24 --epochs 4 \
  --out overlap-mlp-3
for np in 1 2 4; do
  check "mlp, norm batches: --no-overlap at np=$np as np=3 with overlap" \
    same_run overlap-mlp-3 blocking-mlp-$np
done
variant none --norm none
variant group --norm group:10
variant group-mlp --norm group:4 --net mlp --norm-batch 10
variant renorm --norm renorm --norm-batch 24 --renorm-r-max 2.5 --renorm-d-max 2 \
  --renorm-warmup 2 --renorm-r-steps 8 --renorm-d-steps 6
# limits of the 12 steps; closed ones are batch norm, open ones are not
limits() { field "$1" renorm-1/metrics.jsonl | xargs; }
losses() { field loss "$1/metrics.jsonl" | sed -n "$2"; }
check 'trap_38: r_max opens from step 2 to 8' \
  test "$(limits r_max)" = '1 1 1.25 1.5 1.75 2 2.25 2.5 2.5 2.5 2.5 2.5'
check 'trap_38: d_max opens from step 2 to 6' \
  test "$(limits d_max)" = '0 0 0.5 1 1.5 2 2 2 2 2 2 2'
check 'trap_38: closed, every r and d is clipped' test "$(limits r_clipped | cut -c-3) \
$(limits d_clipped | cut -c-3)" = '1 1 1 1'
check 'trap_38: open, not every d is' test "$(limits d_clipped | cut -d" " -f12)" != 1
check 'trap_38: closed, the losses are those of batch norm' \
  same <(losses renorm-1 1,2p) <(losses norm24-1 1,2p)
check 'trap_38: open, they are not' differs <(losses renorm-1 3p) <(losses norm24-1 3p)
check 'trap_38: other weights than those of batch norm' \
  differs renorm-1/model.safetensors norm24-1/model.safetensors
check 'lines of other norms have no limits' lacks r_max norm24-1/metrics.jsonl
variant augment --augment-shift 3 --augment-flip
# test inputs from another source: other evaluations, the same weights
for np in 1 3; do
  must $np "${train[@]}" --batch 64 --epochs 4 --shift blur:1,noise:0.2,invert:1 \
    --out shift-$np
done
check '--shift: np=3 as np=1' same_run shift-1 shift-3
check '--shift changes no weight' same shift-1/model.safetensors plain-1/model.safetensors
check 'and changes evaluations' \
  differs <(field test_loss shift-1/metrics.jsonl) <(field test_loss plain-1/metrics.jsonl)
variant momentum --norm-momentum none --schedule cosine --warmup 3 --nesterov \
  --weight-decay 0.01
variant drop --drop-last
variant classes --norm-batch 16 --classes 2
variant classes-all --classes 4 --norm renorm --renorm-warmup 2
variant adam --optimizer adamw --weight-decay 0.01 --label-smoothing 0.1 --init-scale 0.5
variant gaussian --optimizer adam --init-sigma 0.05
variant dropout --dropout 0.4
variant resnet8 --net resnet8

# Sums by MPI as through memory.
export SBN_SUMS=mpi
for np in 2 4; do
  must $np "${train[@]}" --batch 60 --epochs 8 --out by-mpi-$np
  check "sums by MPI at np=$np as np=1" same_run cnn-60-1 by-mpi-$np
done
# Some of Open MPI's ways to add leave different roundings on different processes.
if [ ${#quiet[@]} -gt 0 ]; then
  for algorithm in 1 2 3 4 5 6; do
    mpi --mca coll_tuned_use_dynamic_rules 1 \
      --mca coll_tuned_allreduce_algorithm $algorithm \
      -np 4 "$program" "${train[@]}" --batch 60 --epochs 8 --out "allreduce-$algorithm"
    check "trap_15: allreduce algorithm $algorithm at np=4" \
      same_run cnn-60-1 "allreduce-$algorithm"
  done
  mpi --mca btl self,tcp --mca btl_tcp_if_include lo -np 4 \
    "$program" "${train[@]}" --batch 60 --epochs 8 --out tcp
  check "np=4 over TCP as np=1" same_run cnn-60-1 tcp
else
  skip "allreduce algorithms and TCP: not Open MPI"
fi
unset SBN_SUMS

must 4 train --data synthetic --limit-train 200 --limit-test 50 --epochs 3 \
  --progress none --out synthetic-4
must 3 train --data synthetic --limit-train 200 --limit-test 50 --epochs 3 \
  --progress none --out synthetic-3
check "synthetic data: np=4 as np=3" same_run synthetic-3 synthetic-4

# a folder of another shape, and gzip instead of plain files
mkdir small packed
"$make_idx" small 90 30 20 && "$make_idx" packed 150 40 && gzip packed/*
printf 'input 1x20x20\nconv c out=4 kernel=3 stride=2 pad=1\nnorm n\nrelu\n' >small.net
printf 'maxpool size=3\nlinear d out=10\nlogsoftmax\n' >>small.net
for np in 1 4; do
  must $np train --data small --net small.net --batch 20 --norm-batch 7 --steps 20 \
    --progress none --out "small-$np"
done
check "a net and a data set of the user: np=4 as np=1" same_run small-1 small-4
must 2 train --data packed --batch 64 --epochs 8 --progress none --out packed-2
check "gzip files as plain files" same_run cnn-64-1 packed-2

mkdir cifar && "$make_idx" --cifar cifar 103 30
for np in 1 3; do
  must $np train --data cifar10:cifar --net cnn-cifar --batch 32 --norm-batch 16 --epochs 2 \
    --augment-shift 4 --augment-flip --progress none --out "cifar-$np"
done
check "CIFAR-10's files: np=3 as np=1" same_run cifar-1 cifar-3

if [ -d /usr/share/datasets/fashion-mnist ]; then
  for np in 1 4; do
    must $np train --limit-train 500 --limit-test 200 --epochs 2 --progress none \
      --out "fashion-$np"
  done
  check "fashion-mnist: np=4 as np=1" same_run fashion-1 fashion-4
else
  skip "fashion-mnist: not installed"
fi
finish

#!/usr/bin/env bash
# A value that is not finite, on one process: all stop at the same step, by name, or leave
# the step out, to the same bytes at any number of processes.
set -u
faulty=$(realpath "$5")
. "$(dirname "$0")/program_lib.sh"

mkdir data
"$make_idx" data 150 40 || exit 1
train=(train --data data --progress none --batch 60 --steps 9 --lr 0.01)
sound=$program
must 1 "${train[@]}" --out sound
program=$faulty
must 2 "${train[@]}" --out unharmed
check "the test's own build, without a fault, has the weights of the program" cmp sound/model.safetensors unharmed/model.safetensors

export SBN_TEST_SAMPLE=77
where= # step and sample, the same at any number of processes
for np in 1 3 4; do
  refused "stop at np=$np" 77 \
    'step [1-3]: .*the net: NaN or infinity in its input, sample [0-9]* of the batch' "$np" \
    "${train[@]}" --out "stop-$np"
  here=$(sed -n 's/^syncbn: \(step [0-9]*\): .*\(sample [0-9]*\).*/\1 \2/p' stderr.txt)
  check "np=$np: at the same step and sample: $here" test "${where:=$here}" = "$here"
  if [ "$np" -gt 1 ]; then
    check "np=$np: the process is named" grep -q '^syncbn: step [0-9]: process [0-3]: ' stderr.txt
  fi
done
for np in 1 2 3; do
  works "skip at np=$np" "$np" "${train[@]}" --nonfinite skip --out "skip-$np"
  check "np=$np: each epoch leaves one step out, and says so" \
    test "$(grep -c '; skipped$' stderr.txt)" = 3
  check "np=$np: they are counted" grep -q '^3 steps were not finite' stdout.txt
  check "np=$np: and marked" test "$(grep -c '"loss":null.*"nonfinite":true' "skip-$np/metrics.jsonl")" = 3
done
for np in 2 3; do check "the same run at np=1 and $np" same_run skip-1 "skip-$np"; done
check "another than the sound one" differs sound/model.safetensors skip-1/model.safetensors

must 2 "${train[@]}" --steps 5 --nonfinite skip --out resumed
must 3 "${train[@]}" --nonfinite skip --resume --out resumed
check "resumed" cmp skip-1/model.safetensors resumed/model.safetensors

# Weights, statistics and optimizer behind a skipped step are those before it, also where
# the norm layers have seen all of it.
unset SBN_TEST_SAMPLE
must 2 "${train[@]}" --steps 3 --out before
export SBN_TEST_STEP=4
must 3 "${train[@]}" --steps 4 --nonfinite skip --out behind
check "process 2 is named" grep -q "^syncbn: step 4: process 2: a test's failure; skipped$" stderr.txt
check "weights and statistics behind a skipped step" \
  cmp before/model.safetensors behind/model.safetensors
refused "a failure at the end of a step" 77 "step 4: process 1: a test's failure" 2 \
  "${train[@]}" --out failed
# In what a layer makes of sound samples: the layer is named.
export SBN_TEST_STEP=5 SBN_TEST_WEIGHTS=conv2.weight
for np in 2 3; do
  refused "NaN in an activation at np=$np" 77 "^syncbn: step 5: process $((np - 1)): conv2: \
NaN or infinity in its output, sample [0-9]* of the batch" "$np" "${train[@]}" --out "inside-$np"
done
unset SBN_TEST_STEP SBN_TEST_WEIGHTS
export SBN_TEST_SAMPLE=77

# A sample of every step.
row=(train --data data --progress none --batch 150 --steps 9 --nonfinite skip --max-skips 2 \
  --checkpoint-every 1 --out many)
for again in '' --resume; do
  run 2 "${row[@]}" $again
  check "more in a row than allowed${again:+, resumed}: exit code 77" test "$code" = 77
  check "says so" has '^syncbn: more than 2 steps in a row are not finite: step 3: process' stderr.txt
done
export SBN_TEST_VALUE=1e30
where=
for np in 1 2 3; do
  process=
  if [ "$np" -gt 1 ]; then process="process [0-$((np - 1))]: "; fi
  refused "too large at np=$np" 77 \
    "^syncbn: step [1-3]: ${process}conv2_bn: a value too large for the exact sums" "$np" \
    "${train[@]}" --out "large-$np"
  here=$(sed -n 's/^syncbn: \(step [0-9]*\): .*/\1/p' stderr.txt)
  check "np=$np: at the same step: $here" test "${where:=$here}" = "$here"
done
program=$sound
refused "another policy on one process" 78 'nonfinite: expected the same' 1 "${train[@]}" --out differs \
  : -np 1 "$program" "${train[@]}" --out differs --nonfinite skip
finish

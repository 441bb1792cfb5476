#!/usr/bin/env bash
# What a run measures of itself: when, that it is what other ways to it say, at any number
# of processes, and that a run which was stopped leaves the records of the undisturbed one.
# shellcheck disable=SC2317 # functions are called by name
set -u
. "$(dirname "$0")/program_lib.sh"

mkdir data
"$make_idx" data 150 40 || exit 1
# the test half is the first 100 samples of the other
mkdir twin
cp data/train-* twin
for file in images-idx3 labels-idx1; do cp data/train-$file-ubyte twin/t10k-$file-ubyte; done
train=(train --data data --progress none --batch 60 --steps 10)

# records KIND FOLDER: its lines of that kind
records() { grep "\"kind\":\"$1\"" "$2/metrics.jsonl"; }
# steps_of KIND FOLDER: their steps
steps_of() { records "$1" "$2" | grep -o '"step":[0-9]*' | cut -d: -f2 | xargs; }
# of NAME KIND FOLDER: their numbers of that name
of() { records "$2" "$3" | grep -o "\"$1\":[^,}]*" | cut -d: -f2; }

# when: an epoch has 3 steps
must 2 "${train[@]}" --out plain
check 'evaluations at the end of each epoch and of the run' \
  test "$(steps_of eval plain)" = '3 6 9 10'
must 2 "${train[@]}" --eval-every 4 --out every4
check '--eval-every 4' test "$(steps_of eval every4)" = '4 8 10'
check 'and nothing else is another' \
  same <(records step plain) <(records step every4)
check 'weights neither' same plain/model.safetensors every4/model.safetensors
check 'checkpoints neither' same plain/checkpoint.safetensors every4/checkpoint.safetensors
must 2 "${train[@]}" --eval-every 20 --out every20
check '--eval-every 20: the last step' test "$(steps_of eval every20)" = 10
must 2 "${train[@]}" --log-every 4 --out log4
check '--log-every 4, and the last step' test "$(steps_of step log4)" = '4 8 10'
check 'the same records' \
  same <(records step plain | sed -n '4p;8p;10p') <(records step log4)
check 'and weights' same plain/model.safetensors log4/model.safetensors

# of training samples
must 3 "${train[@]}" --data twin --limit-test 100 --eval-train 100 --out twins
check '--eval-train 100: scores of the same samples in the test half' \
  same <(of test_loss eval twins) <(of train_loss eval twins)
check 'and their accuracy' \
  same <(of test_accuracy eval twins) <(of train_accuracy eval twins)
must 1 "${train[@]}" --data twin --eval-train 200 --out more
check 'no more training samples than there are' \
  same <(of test_loss eval more) <(of train_loss eval more)
must 1 "${train[@]}" --eval-train 100 --out train100
check 'other than those of the test half' \
  differs <(of test_loss eval train100) <(of train_loss eval train100)
check 'test scores stay what they are' same <(of test_loss eval plain) <(of test_loss eval train100)
check 'without it there are none' lacks train_loss plain/metrics.jsonl

# by precise statistics: as eval makes them of the saved model
for n in all 64; do
  must 2 "${train[@]}" --precise-stats $n --eval-train 100 --out precise
  must 1 eval precise --data data --precise-stats $n
  check "--precise-stats $n: the loss that eval finds" \
    has "test loss $(of test_loss precise precise | awk '{printf "%.17g", $1}')," stdout.txt
  check 'at the end' test "$(steps_of precise precise)" = 10
  check 'of so many samples' test "$(of samples precise precise)" = "${n/all/150}"
  check 'other than by running statistics' \
    differs <(of test_loss precise precise) <(of test_loss eval precise | tail -n 1)
  check 'on training samples too' \
    differs <(of train_loss precise precise) <(of train_loss eval precise | tail -n 1)
  check 'the model keeps its running ones' \
    same plain/model.safetensors precise/model.safetensors
  check 'so does the checkpoint' same plain/checkpoint.safetensors precise/checkpoint.safetensors
done
must 2 "${train[@]}" --norm none --precise-stats all --out bare
check 'without norm, an evaluation like the one before' \
  same <(of test_loss precise bare) <(of test_loss eval bare | tail -n 1)

# to a target
often=("${train[@]}" --steps 40 --eval-every 2 --lr 0.02)
must 1 "${often[@]}" --out whole
target=$(of test_accuracy eval whole | sort -g | tail -n 1)
at=$(records eval whole | grep "\"test_accuracy\":$target}" | head -n 1 | grep -o '"step":[0-9]*' |
  cut -d: -f2)
check "the test has a target before the end: $target at step $at" test "$at" -lt 40
must 2 "${often[@]}" --target "$target" --log-every 7 --precise-stats all --out reached
check 'a run ends where it reaches its target' test "$(of steps done reached)" = "$at"
check 'and says so' has "\"target\":$target,\"reached\":true}" reached/metrics.jsonl
check 'with a record of its last step' test "$(steps_of step reached | awk '{print $NF}')" = "$at"
check 'and all that belongs to an end' test "$(steps_of precise reached)" = "$at"
must 1 "${often[@]}" --steps "$at" --out short
check 'it is the run of so many steps' same short/model.safetensors reached/model.safetensors
check 'on the way nothing is another' \
  same <(timeless short | grep -v '"step","step"') <(timeless reached | grep '"eval"')
cp -r reached again
must 3 "${often[@]}" --target "$target" --log-every 7 --precise-stats all --resume --out again
check 'resumed there, nothing is left to do' same_run reached again
must 2 "${often[@]}" --target 1 --out whole-1
check 'not reached: to the last step' test "$(of steps done whole-1)" = 40
check 'and says so' has '"target":1,"reached":false}' whole-1/metrics.jsonl
must 2 "${often[@]}" --target "$target" --out on
must 3 "${often[@]}" --target 1 --resume --out on
check 'resumed with a higher target: as if it had been so from the start' same_run whole-1 on
check 'without a target there is no word of it' lacks target whole/metrics.jsonl

# stopped behind every step, resumed by another number of processes each time
plain=("${train[@]}" --steps 12 --norm-batch 24 --norm renorm --renorm-warmup 1
  --renorm-r-steps 8 --renorm-d-steps 8 --dropout 0.2 --augment-shift 2 --augment-flip)
all=("${plain[@]}" --eval-every 4 --log-every 3 --eval-train 70 --precise-stats 90
  --target 1 --stat-noise --track conv2_bn:37 --track-every 2 --noise-scale 2)
must 1 "${all[@]}" --out np1
must 1 "${plain[@]}" --out few
check 'a run that measures itself has the weights of one that does not' \
  same few/model.safetensors np1/model.safetensors
check 'and its checkpoint' same few/checkpoint.safetensors np1/checkpoint.safetensors
check 'percentiles of the steps asked for' \
  test "$(steps_of activations np1)" = '2 4 6 8 10 12'
check 'before the relu: below 0' has '"p15":-' <(records activations np1)
check 'noise of both norm layers with each evaluation' \
  test "$(steps_of statistics np1)" = '4 4 8 8 12 12'
check 'noise of gradients at the steps asked for, but where 30 samples end an epoch' \
  test "$(steps_of noise_scale np1)" = '2 4 8 10'
check 'from whole norm batches, 2 of 60 samples' \
  test "$(of big noise_scale np1 | xargs)" = '48 48 48 48'
for np in 2 3; do
  must $np "${all[@]}" --out np$np
  check "every record: np=$np as np=1" same_run np1 np$np
done
mkdir halted
for step in 1 2 3 4 5 6 7 8 9; do
  : >halted/halt
  run $((1 + step % 3)) "${all[@]}" --resume --out halted
  check "halted behind step $step" test "$code" = 75
done
must 2 "${all[@]}" --resume --out halted
check 'stopped nine times: every record as undisturbed' same_run np1 halted

refused 'no steps between records' 64 'log-every: expected a whole number from 1' \
  2 "${train[@]}" --log-every 0 --out no
refused 'no steps between evaluations' 64 'eval-every: expected a whole number from 1' \
  2 "${train[@]}" --eval-every 0 --out no
refused 'a target above 1' 64 'target: expected a number from 0 to 1' \
  2 "${train[@]}" --target 85 --out no
refused 'noise of gradients without norm batches' 64 'expected norm batches of at most half' \
  2 "${train[@]}" --noise-scale 1 --out no
refused 'noise of gradients of two unequal halves' 64 'half the batch of 60, got 31' \
  2 "${train[@]}" --noise-scale 1 --norm-batch 31 --out no
refused 'a unit of no layer' 64 '(conv1 conv2 conv2_bn .*), got "conv3"' \
  3 "${train[@]}" --track conv3 --out no
refused 'no unit of the layer' 64 'unit 0 to 49 of layer dense1_bn, got 50' \
  3 "${train[@]}" --track dense1_bn:50 --out no
refused 'a layer that the run has not' 64 'got "dense1_bn"' \
  1 "${train[@]}" --track dense1_bn --norm none --out no
finish

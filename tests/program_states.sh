#!/usr/bin/env bash
# Bad checkpoints and weights, folders that cannot be written, values that are not finite,
# processes that disagree: one line, the right exit code, nobody left waiting.
# shellcheck disable=SC2317 # functions are called by name
set -u
. "$(dirname "$0")/program_lib.sh"

mkdir data
"$make_idx" data 150 40 || exit 1
train=(train --data data --batch 60 --steps 6 --progress none)
must 2 "${train[@]}" --out run || finish

# bad_checkpoint TEXT PATTERN: of the copy in bad/, where no other could take its place
fresh() {
  rm -rf bad
  cp -r run bad
  rm bad/checkpoint-previous.safetensors
}
# as a framework writes it
without_digests() { LC_ALL=C sed -i 's/"xxh3"/"xxh_"/' "$1"; }
checkpoint=bad/checkpoint.safetensors model=bad/model.safetensors
bad_checkpoint() { refused "$1" 65 "$2" 4 "${train[@]}" --resume --out bad "${@:3}"; }
bad_model() { refused "$1" "$2" "$3" 4 eval bad --data data "${@:4}"; }
fresh
bad_checkpoint 'checkpoint of another net' 'another net' --net mlp
bad_model 'weights of another net' 65 'another net' --net mlp
fresh && truncate -s -1 $checkpoint
bad_checkpoint 'checkpoint without its last byte' checkpoint.safetensors
fresh && truncate -s 2000 $checkpoint
bad_checkpoint 'checkpoint cut in its header' checkpoint.safetensors
fresh && : >$checkpoint
bad_checkpoint 'empty checkpoint' 'expected at least 8 bytes'
fresh && put_bytes $checkpoint 0 '\377\377\377\377\377\377\377\177'
bad_checkpoint 'header larger than the file' 'header'
fresh && put_bytes $checkpoint 20 '"""'
bad_checkpoint 'header that is no JSON' 'JSON'
fresh && cp $model $checkpoint
bad_checkpoint 'weights for a checkpoint' 'expected a checkpoint'
fresh && rm $checkpoint && mkdir $checkpoint
refused 'folder for a checkpoint' 74 'directory' 4 "${train[@]}" --resume --out bad
fresh && rm $model && mkfifo $model
bad_model 'pipe for weights' 74 'Not a regular file'
fresh && truncate -s -4 $model
bad_model 'truncated weights' 65 'model.safetensors'
fresh && rm $model
bad_model 'folder without weights' 74 'model.safetensors'
fresh && LC_ALL=C sed -i 's/"norm":"batch"/"norm":"botch"/' $model
bad_model 'weights of an unknown norm' 65 'expected norm batch.* got "botch"'
refused 'missing weights' 74 'nowhere' 4 eval nowhere --data data
refused 'saving what was not made precise' 64 'precise-stats' 4 eval run --data data --save x
refused 'precise statistics of no samples' 64 'precise-stats' 4 eval run --data data \
  --precise-stats 0
refused 'precise statistics into a missing folder' 74 'nowhere' 4 eval run --data data \
  --precise-stats all --save nowhere/model.safetensors
must 2 "${train[@]}" --norm group:5 --net mlp --out grouped
refused 'precise statistics of a net without any' 64 'running statistics' 4 eval grouped \
  --data data --precise-stats all
refused 'metrics for weights' 65 'metrics.jsonl' 4 eval run/metrics.jsonl --data data
refused 'weights on missing data' 65 'nowhere' 4 eval run --data nowhere
fresh && sed -i '2s/.*/nonsense/' bad/metrics.jsonl
bad_checkpoint 'damaged metrics' 'line 2'
refused 'damaged metrics, inspected' 65 'metrics.jsonl:2' 4 inspect bad/metrics.jsonl
sed -i '2s/.*/[1]/' bad/metrics.jsonl
refused 'metrics that are no object' 65 'metrics.jsonl:2' 4 inspect bad/metrics.jsonl
refused 'nothing to inspect there' 74 'nowhere' 4 inspect nowhere
refused 'a file of no known kind' 64 'expected a folder, a net' 4 inspect run/run.json

# a framework's file from before batches were counted, or of a layer that lacks statistics
without() { LC_ALL=C sed -i "s/conv2_bn\.$1\"/conv2_bn.${1%?}_\"/" "$2"; }
figures() { sed 's/.*: test accuracy/test accuracy/; s/, [0-9.]* s$//' stdout.txt; }
must 2 eval run --data data
expected=$(figures)
fresh && without num_batches_tracked $model && without_digests $model
check 'the count is gone' lacks 'conv2_bn\.num_batches_tracked' $model
works 'trap_30: weights without a count of batches' 2 eval bad --data data
check 'evaluate alike' test -n "$expected" -a "$(figures)" = "$expected"
fresh && without num_batches_tracked $checkpoint
bad_checkpoint 'checkpoint without a count of batches' 'header differs from its digest'
fresh && without_digests $checkpoint
bad_checkpoint 'checkpoint without digests' 'no digests of its [0-9]* tensors'
fresh && without running_var $model && without_digests $model
bad_model 'weights without a variance' 65 'conv2_bn.running_var'

# cannot write
: >file
unwritable() { refused "$1" 74 "$2" 4 "${train[@]}" --out "$3"; }
unwritable 'out below a file' 'file/out' file/out
unwritable 'out is a file' 'expected a folder' file
unwritable 'out is a device' 'expected a folder' /dev/null
unwritable 'out where nothing can be made' '/proc/syncbn' /proc/syncbn/out
mkdir full-metrics && ln -s /dev/full full-metrics/metrics.jsonl
unwritable 'no room for metrics' 'metrics.jsonl: No space left' full-metrics
mkdir -p full-run/run.json
unwritable 'run.json is a folder' 'run.json' full-run
long=$(printf '%0250d' 0)
unwritable 'name that is too long' 'File name too long' "$long$long"
refused 'path that is too long' 64 'at most 4094 bytes, got 5020' \
  4 "${train[@]}" --out "$(yes "$long" | head -n 20 | tr '\n' /)"
if [ "$(id -u)" != 0 ]; then
  mkdir closed && chmod 555 closed
  unwritable 'out in a folder that is closed' 'Permission denied' closed/out
fi
mkdir disk
if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=128k none disk 2>/dev/null; then
  trap 'cd /; umount "$work/disk"; clean_up' EXIT
  unwritable 'disk full' 'No space left' disk/out
  check 'disk full leaves no torn file behind' \
    test -z "$(find disk -name '*.tmp-*' -o -name 'model.safetensors')"
  umount disk && trap clean_up EXIT
else
  skip 'disk full: no small file system can be mounted here'
fi
for command in --help --version 'train --help' 'inspect cnn'; do
  # shellcheck disable=SC2086 # words
  "$program" $command >/dev/full 2>stderr.txt
  check "$command to a full device: 74" test $? = 74 -a "$(wc -l <stderr.txt)" = 1
done

# not finite
refused 'trap_31: rate that leads to infinity' 77 'step [0-9]*: ' \
  4 "${train[@]}" --lr 1e30 --out inf
check 'the steps before are in the metrics' has '"step":1,' inf/metrics.jsonl
check 'no weights are written' absent inf/model.safetensors
refused 'infinity without norm layers' 77 'step' 4 "${train[@]}" --lr 1e30 --norm none
refused 'infinity in a net of sigmoids' 77 'step' 4 "${train[@]}" --lr 1e38 --net mlp
refused 'infinity by decay' 77 'step' 4 "${train[@]}" --weight-decay 1e30

fresh && put_bytes $model $(($(size_of $model) - 4)) '\377\377\377\377'
bad_model 'weights of other bits' 65 'running_var differs from its digest'
without_digests $model
bad_model 'weights that are not finite' 77 'bad/model.safetensors on data: '

# processes that disagree: started two by two
two_kinds() { # TEXT CODE PATTERN ARGUMENT... : ARGUMENT...
  local text=$1 expected=$2 pattern=$3 first=()
  shift 3
  while [ "$1" != : ]; do
    first+=("$1")
    shift
  done
  limit_s=$refusal_s mpi -np 2 "$program" "${first[@]}" : -np 2 "$program" "${@:2}"
  judge_refusal
}
t=("${train[@]}")
two_kinds 'other batch' 78 '--batch: .* 60 on processes 0, 1, 50 on processes 2, 3' \
  "${t[@]}" : "${t[@]}" --batch 50
two_kinds 'other rate' 78 '--lr: .* 0.05 on processes 0, 1, 0.1 on processes 2, 3' "${t[@]}" : "${t[@]}" --lr 0.1
two_kinds 'other seed' 78 '--seed: ' "${t[@]}" : "${t[@]}" --seed 2
two_kinds 'other folder' 78 '--out: ' "${t[@]}" --out a : "${t[@]}" --out b
two_kinds 'other schedule' 78 '--schedule: .*constant.*step' "${t[@]}" : \
  "${t[@]}" --schedule step
two_kinds 'other command' 78 'train .* eval' "${t[@]}" : eval run
two_kinds 'other data to evaluate' 78 '--data: ' eval run --data data : eval run
two_kinds 'other number to evaluate' 78 '--limit-test' eval run --data data : \
  eval run --data data --limit-test 10
two_kinds 'other weights' 78 'the argument: .*run.*bad' eval run --data data : \
  eval bad --data data
two_kinds 'help on some' 78 'help' "${t[@]}" : "${t[@]}" --help
two_kinds 'an unknown option on some' 64 'process 2: unknown option' \
  "${t[@]}" : "${t[@]}" --bacth 3
two_kinds 'no command on some' 64 'process 2: expected a command' "${t[@]}" :

# the same words, other files: two folders as on two hosts
mkdir here there
cp -r data run here && cp -r data run there
cp "$tests/../examples/nets/cnn.net" here/own.net
cp here/own.net there/own.net
two_places() { # TEXT CODE PATTERN ARGUMENT...
  local text=$1 expected=$2 pattern=$3
  shift 3
  limit_s=$refusal_s mpi -np 2 -wdir "$work/here" "$program" "$@" : \
    -np 2 -wdir "$work/there" "$program" "$@"
  judge_refusal
}
own=("${train[@]}" --net own.net --out "$work/two")
sed -i s/relu/sigmoid/ there/own.net
two_places 'a net that differs' 78 'net' "${own[@]}"
sed -i '/norm conv2_bn/d' there/own.net
two_places 'a net with fewer norm layers' 78 'net' "${own[@]}"
printf 'cnov\n' >there/own.net
two_places 'a net malformed on some' 65 'process 2: own.net:1:1' "${own[@]}"
rm there/own.net
two_places 'a net missing on some' 64 'process 2: .*own.net' "${own[@]}"
put_bytes there/run/model.safetensors 3000 '\1\2\3'
without_digests there/run/model.safetensors
two_places 'weights that differ' 78 'weights' eval run --data data
truncate -s 3000 there/run/model.safetensors
two_places 'weights truncated on some' 65 'process 2' eval run --data data
"$make_idx" there/data 140 40
two_places 'data of another size' 78 'data' "${train[@]}"
rm -r there/data
two_places 'data missing on some' 65 'process 2: data is no folder' "${train[@]}"
finish

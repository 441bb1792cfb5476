#!/usr/bin/env bash
# What a run leaves in its folder, what eval, inspect and --help say of it, and the memory
# that it takes.
# shellcheck disable=SC2317 # functions are called by name
set -u
. "$(dirname "$0")/program_lib.sh"

mkdir data
"$make_idx" data 150 40 || exit 1
train=(train --data data --batch 64 --epochs 3 --progress none)

works 'a run' 3 "${train[@]}" --out run --norm-batch 32
check 'it says where the results are' has 'results in run' stdout.txt
check 'and the test accuracy' has 'test accuracy 0\.' stdout.txt
check 'it leaves five files and nothing else' test "$(cd run && ls -A | xargs)" = \
  'checkpoint-previous.safetensors checkpoint.safetensors metrics.jsonl model.safetensors run.json'

metrics=run/metrics.jsonl
number='-?[0-9.]+(e[-+]?[0-9]+)?'
count() { grep -cE "$1" "$metrics"; }
check '9 steps of 3 epochs' test \
  "$(count "^\{\"kind\":\"step\",\"step\":[0-9]+,\"epoch\":[1-3],\"loss\":$number,\"lr\":0.05\}$")" = 9
check 'steps count from 1' test \
  "$(field step <(grep '"kind":"step"' $metrics) | xargs)" = '1 2 3 4 5 6 7 8 9'
check 'epochs count from 1' test \
  "$(field epoch <(grep '"kind":"step"' $metrics) | xargs)" = '1 1 1 2 2 2 3 3 3'
check 'an evaluation of each epoch' test \
  "$(count "^\{\"kind\":\"eval\",\"epoch\":[1-3],\"step\":[369],\"test_loss\":$number,\"test_accuracy\":$number\}$")" = 3
check 'one last line: done' test "$(tail -n 1 $metrics | grep -cE \
  "^\{\"kind\":\"done\",\"steps\":9,\"seconds\":$number,\"images_per_s\":$number,\"test_accuracy\":$number\}$")" = 1
check 'no line more' test "$(wc -l <$metrics)" = 13
check 'a loss has the digits of a double' test \
  "$(field loss $metrics | grep -cE '[0-9]{15,}')" -ge 7
check 'learning takes place' awk -v a="$(field loss $metrics | head -n 1)" \
  -v b="$(field loss $metrics | tail -n 1)" 'BEGIN { exit !(a > 1.5 && a < 3.5 && b < a) }'

# JSON is checked where there is a program for it
if command -v python3 >/dev/null; then
  is_json() { python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$1"; }
  are_json() { python3 -c 'import json, sys; [json.loads(l) for l in open(sys.argv[1])]' "$1"; }
  check 'run.json is JSON' is_json run/run.json
  check 'every line of metrics.jsonl is JSON' are_json $metrics
else
  skip 'JSON: no python3'
fi
for fact in '"processes": 3' '"hosts": 1' '"threads": 1' '"net": "cnn"' '"data": "data"' \
  '"batch": 64' '"norm_batch": 32' '"norm": "batch"' '"seed": 1' '"lr": 0.05' '"syncbn": "' \
  '"revision": "' '"mpi": "' '"blas": "' '"cpu": "' '"isa": "' "\"host\": \"$(uname -n)\""; do
  check "run.json says $fact" has "$fact" run/run.json
done
check 'weights name no folder' lacks "${work##*/}" run/model.safetensors
host=$(uname -n)
if [ ${#host} -gt 4 ]; then # a shorter name may stand there by chance
  check 'weights name no host' lacks "$host" run/model.safetensors
fi
check 'weights name the net' has 'conv conv1 out=10' run/model.safetensors
must 2 "${train[@]}" --norm-batch 32 --out "other folder" &&
  check 'another folder, the same bytes of weights' \
    same run/model.safetensors 'other folder/model.safetensors'
must 1 "${train[@]}" --seed 9223372036854775807 --out big &&
  check 'the largest seed is in run.json' has '"seed": 9223372036854775807' big/run.json
odd=$(printf 'data-\374')
cp -r data "$odd"
works 'a folder whose name is not UTF-8' 2 train --data "$odd" --steps 2 --out "$odd/out" \
  --progress none

"$program" "${train[@]}" --norm-batch 32 --out closed <&- >&- 2>&-
check 'all standard streams closed: done' test $? = 0
check 'and nothing is printed into a file' same_run run closed

# --comm-report: a row for each layer and phase, in print and in comm.json
# row LAYER PHASE LEAST [MOST]: the table has it once, with so many messages
row() {
  awk -v layer="$1" -v phase="$2" -v least="$3" -v most="${4:-$3}" \
    '$1 == layer && $2 == phase { rows++; if ($3 < least || $3 > most) wrong = 1 }
    END { exit rows != 1 || wrong }' stdout.txt
}
for np in 2 3; do
  must $np "${train[@]}" --norm-batch 32 --comm-report --out told$np || continue
  check "--comm-report at np=$np: the same run" same_run run told$np
  for layer in conv2_bn dense1_bn; do
    check "9 messages forward of $layer" row $layer forward 9
    # backward runs again where exponents of the sums move
    check "9 messages backward of $layer, perhaps more" row $layer backward 9 12
  done
  check 'messages of gradients' grep -qE '^[a-z0-9.]+ +gradients +[0-9]+ ' stdout.txt
  check '3 evaluations' row model evaluation 3
  check 'and how long one should take' has '^predicted: [0-9.]* us + [0-9.]* ns a byte' stdout.txt
  if command -v python3 >/dev/null; then
    check "comm.json of np=$np says what the table says" \
      python3 "$tests/support/check_comm.py" told$np/comm.json $np stdout.txt
  fi
done
must 2 "${train[@]}" --norm-batch 32 --comm-report --resume --out told2 &&
  check 'a resumed run with nothing left to train: one evaluation' row model evaluation 1
must 1 "${train[@]}" --norm-batch 32 --comm-report --out told2
check 'one process sends nothing' has '^messages: none' stdout.txt
check 'and comm.json has no rows' has '"rows": \[\]' told2/comm.json
must 2 "${train[@]}" --norm-batch 32 --out told2
check 'without the option no table' lacks predicted stdout.txt
check 'and no report of an earlier run' absent told2/comm.json
mkdir -p blocked/comm.json
run 2 "${train[@]}" --comm-report --resume --out blocked
check 'a comm.json that cannot be written: 74' test "$code" = 74
check 'in one line' test "$(grep -c '^syncbn: .*comm.json' stderr.txt)" = 1

# eval: the accuracy of the done line, with the loss of the last evaluation
accuracy_of() { grep -o 'accuracy [0-9.]*' stdout.txt | cut -d' ' -f2; }
loss_of() { grep -o 'loss [0-9.e-]*' stdout.txt | cut -d' ' -f2; }
# evaluates DIR WEIGHTS ARGUMENT...: as the run in DIR did, at np=1 and 3
evaluates() {
  local dir=$1 np accuracy loss
  accuracy=$(field test_accuracy "$dir/metrics.jsonl" | tail -n 1)
  loss=$(field test_loss "$dir/metrics.jsonl" | tail -n 1)
  for np in 1 3; do
    must $np eval "${@:2}" || continue
    check "eval ${*:2} at np=$np: the run's accuracy" \
      awk -v a="$(accuracy_of)" -v b="$accuracy" 'BEGIN { exit !(a - b < 5e-5 && b - a < 5e-5) }'
    check "eval ${*:2} at np=$np: the run's loss" \
      awk -v a="$(loss_of)" -v b="$loss" 'BEGIN { exit !(a == b) }'
  done
}
evaluates run run --data data
evaluates run run/model.safetensors --data data
evaluates run --weights run/checkpoint.safetensors --data data --net cnn
must 2 "${train[@]}" --norm none --out none
evaluates none none --data data
must 2 "${train[@]}" --norm group:5 --out group
check 'run.json says how many groups' has '"norm": "group:5"' group/run.json
evaluates group group --data data
must 2 "${train[@]}" --norm renorm --renorm-warmup 3 --renorm-r-steps 8 --renorm-d-steps 5 \
  --out renorm
check 'the last limits are in the report' has 'last step: r_max 3, d_max 5$' stdout.txt
for fact in '"norm": "renorm"' '"renorm_r_max": 3.0' '"renorm_d_max": 5.0' \
  '"renorm_warmup": 3' '"renorm_r_steps": 8' '"renorm_d_steps": 5'; do
  check "run.json says $fact" has "$fact" renorm/run.json
done
check 'run.json says what the model holds' has '"activations_bytes": [1-9]' run/run.json
check 'and not in a run of another norm' lacks renorm_ run/run.json
evaluates renorm renorm --data data
evaluates renorm renorm/checkpoint.safetensors --data data
must 2 "${train[@]}" --norm renorm --out closed-limits
check 'limits that never opened are called by their name' has 'which is batch norm' stdout.txt
must 2 "${train[@]}" --norm-eps 0.1 --net mlp --limit-test 33 --out eps
evaluates eps eps --data data --limit-test 33
evaluates eps eps/checkpoint.safetensors --data data --limit-test 33
must 2 train --data synthetic --limit-train 100 --limit-test 50 --steps 5 --seed 4 \
  --progress none --out drawn
evaluates drawn drawn --data synthetic --seed 4 --limit-test 50

# says TEXT PATTERN ARGUMENT...: of inspect and --help, at np=2, once
says() {
  must 2 "${@:3}" || return
  check "${*:3}: $1" test "$(grep -cE -e "$2" stdout.txt)" = 1
}
says 'training images' '^train: 150 images of 1x28x28' inspect data
says 'test images' '^test: 40 images of 1x28x28' inspect data
says 'images of synthetic data' '^train: 60000 images of 1x28x28' inspect synthetic
says 'parameters' '^21980 parameters$' inspect cnn
says 'shapes' 'conv2.weight +20x10x5x5' inspect cnn
says 'a net of a file' 'dense4.weight' inspect "$tests/../examples/nets/mlp.net"
says 'ranges of weights' 'conv1.weight +F32 +10x1x5x5 .* mean' inspect run/model.safetensors
says 'batches counted' 'conv2_bn.num_batches_tracked +I64 +scalar +9' \
  inspect run/model.safetensors
says 'settings' '^norm-batch: 32$' inspect run/checkpoint.safetensors
says 'groups' '^norm: group:5$' inspect group/checkpoint.safetensors
says 'limits' '^renorm-r-max: 3$' inspect renorm/checkpoint.safetensors
says 'that a file is whole' '^digests of header and tensors: as written' \
  inspect run/checkpoint.safetensors
says 'the step' '^  step +I64 +scalar +9' inspect run/checkpoint.safetensors
says 'the last loss' '^9 steps, loss .*; 3 evaluations' inspect $metrics
says 'evaluations of a folder' '^9 steps, loss .*; 3 evaluations' inspect run
says 'weights of a folder' 'dense2.weight' inspect run
sed -i '$d' none/metrics.jsonl
says 'a run that was stopped' 'not finished' inspect none
says 'commands' '^  train ' --help
says 'exit codes' '^Exit codes' --help
for command in train eval inspect; do
  says 'its usage' "^Usage: syncbn $command" $command --help
done
says 'options with defaults' '^  --batch=N .*default 64' train --help
says 'a version' '^syncbn [0-9]+\.[0-9]+\.[0-9]+ ' --version
says 'help before anything else' '^Usage: syncbn train' train --data nowhere -h
"$program" inspect cnn >plain.txt 2>&1
check 'the program alone, without mpirun' has '21980 parameters' plain.txt

# memory, while a run of four is under way
n_images=70000 source=fashion-mnist
if ! [ -d /usr/share/datasets/fashion-mnist ]; then
  source=large
  mkdir large && "$make_idx" large 60000 10000
fi
# kB of private and of shared memory of a process: what mappings other than MPI's shared
# segments hold; what the largest of those holds, and its share of it
look() {
  awk '/^[0-9a-f]+-[0-9a-f]+ / { shared = $2 ~ /s$/ }
    $1 == "Rss:" { if (shared) { rss = $2 } else { private += $2 } }
    $1 == "Pss:" && shared && rss > most { most = rss; part = $2 }
    END { print private + 0, most + 0, part + 0 }' "/proc/$1/smaps" 2>/dev/null
}
running() { kill -0 "$job" 2>/dev/null; }
start 4 train --data $source --steps 300 --batch 64 --out memory --progress none \
  --limit-test 5000
# it is made when the images are loaded
wait_for 60 test -e memory/metrics.jsonl
most_private=0 peak=0 images=0 parts=0
while running; do
  sum_parts=0
  for file in pid.?; do
    pid=$(cat "$file")
    high=$(awk '$1 == "VmHWM:" { print $2 }' "/proc/$pid/status" 2>/dev/null)
    read -r private segment part < <(look "$pid")
    # a process that ends while it is looked at says nothing
    if [ -z "$high" ] || [ "${segment:-0}" = 0 ]; then continue; fi
    most_private=$((private > most_private ? private : most_private))
    images=$((segment > images ? segment : images))
    peak=$((high - segment > peak ? high - segment : peak))
    sum_parts=$((sum_parts + part))
  done
  parts=$((sum_parts > parts ? sum_parts : parts))
  sleep 0.2
done
end_of_job
check 'the run of four ends well' test "$code" = 0
need=$((n_images * 785 / 1024))
printf 'private %d kB, peak without images %d kB, largest segment %d kB, shares %d kB\n' \
  "$most_private" "$peak" "$images" "$parts"
check 'the images are in a segment that processes share' test $images -ge $((need * 6 / 10))
check 'the images are held once' test $parts -le $((need * 12 / 10))
check 'below 150 MiB for each process' test $most_private -lt 153600 -a $most_private -gt 1000
check 'below 150 MiB at its highest' test $peak -lt 153600 -a $peak -gt 1000
finish

#!/usr/bin/env bash
# A run that was stopped and resumed ends as the undisturbed one, at any number of
# processes; what cannot be resumed is refused and left as it was.
# shellcheck disable=SC2317 # functions are called by name
set -u
. "$(dirname "$0")/program_lib.sh"

mkdir data
"$make_idx" data 150 40 || exit 1
base=(train --data data --progress none)
train=("${base[@]}" --batch 60)

steps_of() { grep '"kind":"step"' "$1/metrics.jsonl"; }
# same_end A B: weights and the lines of all steps; an evaluation where one run paused is
# the only thing in which they may differ
same_end() {
  cmp "$1/model.safetensors" "$2/model.safetensors" && diff <(steps_of "$1") <(steps_of "$2")
}

must 4 "${train[@]}" --steps 40 --out whole

# 20 steps end in the middle of an epoch of 3
for after in 4 3 1; do
  must 4 "${train[@]}" --steps 20 --out "at-$after"
  must $after "${train[@]}" --steps 40 --resume --out "at-$after"
  check "trap_30: 20 steps at np=4, then 20 at np=$after: as 40" same_end whole "at-$after"
done
must 4 "${train[@]}" --steps 20 --out half
check "20 steps are not yet 40" differs half/model.safetensors whole/model.safetensors
OMP_NUM_THREADS=2 must 2 "${train[@]}" --steps 21 --resume --out half
must 2 "${train[@]}" --steps 40 --resume --out half
check "20, 1 and 19 steps, two threads in between: as 40" same_end whole half

# with all that carries state from step to step
state=("${base[@]}" --batch 64 --net mlp --norm-batch 24 --nesterov --weight-decay 0.01
  --schedule step --lr-every 7 --lr-factor 0.5 --warmup 5 --norm-momentum none)
must 2 "${state[@]}" --steps 30 --out state-whole
must 2 "${state[@]}" --steps 13 --out state
must 3 "${state[@]}" --steps 30 --resume --out state
check "decay, warm-up, schedule, averages: 13 and 17 steps as 30" same_end state-whole state

adam=("${base[@]}" --batch 64 --optimizer adamw --lr 0.002 --weight-decay 0.01
  --label-smoothing 0.1)
must 2 "${adam[@]}" --steps 30 --out adam-whole
must 3 "${adam[@]}" --steps 13 --out adam
cp -r adam adam-13
must 2 "${adam[@]}" --steps 30 --resume --out adam
check "Adam: 13 steps at np=3, then 17 at np=2: as 30" same_end adam-whole adam

# changed training samples are those of their epoch
augment=("${base[@]}" --batch 64 --augment-shift 2 --augment-flip)
must 2 "${augment[@]}" --steps 12 --out augment-whole
must 3 "${augment[@]}" --steps 7 --out augment
cp -r augment augment-7
must 4 "${augment[@]}" --steps 12 --resume --out augment
check "augmentation: 7 steps at np=3, then 5 at np=4: as 12" same_end augment-whole augment

# batches of few classes: the run stops in the middle of an epoch of two steps
classes=("${base[@]}" --batch 64 --norm-batch 16 --classes 2)
must 2 "${classes[@]}" --steps 30 --out classes-whole
must 3 "${classes[@]}" --steps 13 --out classes
cp -r classes classes-13
must 4 "${classes[@]}" --steps 30 --resume --out classes
check "few classes: 13 steps at np=3, then 17 at np=4: as 30" same_end classes-whole classes

# the masks of a step do not depend on the steps before
dropout=("${base[@]}" --batch 64 --dropout 0.3)
must 2 "${dropout[@]}" --steps 12 --out dropout-whole
must 3 "${dropout[@]}" --steps 7 --out dropout
cp -r dropout dropout-7
must 2 "${dropout[@]}" --steps 12 --resume --out dropout
check "dropout: 7 steps at np=3, then 5 at np=2: as 12" same_end dropout-whole dropout

# limits of batch renormalization half open when the run stops
renorm=("${base[@]}" --batch 64 --norm renorm --norm-batch 24 --renorm-warmup 5
  --renorm-r-steps 25 --renorm-d-steps 18)
must 2 "${renorm[@]}" --steps 30 --out renorm-whole
must 3 "${renorm[@]}" --steps 13 --out renorm
cp -r renorm renorm-13
must 1 "${renorm[@]}" --steps 30 --resume --out renorm
check "renorm: 13 steps at np=3, then 17 at np=1: as 30" same_end renorm-whole renorm
group=("${base[@]}" --batch 64 --norm group:5)
must 2 "${group[@]}" --steps 12 --out group-whole
must 3 "${group[@]}" --steps 7 --out group
cp -r group group-7
must 2 "${group[@]}" --steps 12 --resume --out group
check "group norm: 7 steps at np=3, then 5 at np=2: as 12" same_end group-whole group

# resume at the end: nothing is left to do, and nothing changes but the time
cp -r whole again
must 3 "${train[@]}" --steps 40 --resume --out again
check "resumed at its end: as before" same_run whole again
must 2 "${train[@]}" --steps 40 --resume --out fresh
check "--resume without a checkpoint begins anew" same_run whole fresh

# a process dies: the first, another, each time when a checkpoint has just been written
long=("${train[@]}" --steps 300 --checkpoint-every 5)
must 4 "${long[@]}" --out long-whole
# killed NP RANK: resume, kill a process after the next checkpoint, wait for the end
killed() {
  local before
  before=$(stat -c %Y%i long/checkpoint.safetensors 2>/dev/null)
  newer() { [ "$(stat -c %Y%i long/checkpoint.safetensors 2>/dev/null)" != "$before" ]; }
  start "$1" "${long[@]}" --resume --out long
  wait_for $((60 * slowness)) newer
  kill -9 "$(cat "pid.$2")"
  end_of_job
  check "killing process $2 of $1 ends the job" test "$code" -gt 0
  check "it was not done" lacks '"done"' long/metrics.jsonl
  check "its checkpoint can be read" must 1 inspect long/checkpoint.safetensors
  check "no model is there yet" absent long/model.safetensors
}
killed 4 2
killed 4 0
killed 3 1
must 4 "${long[@]}" --resume --out long
check "killed three times and resumed: as undisturbed, evaluations included" \
  same_run long-whole long

# a line that a crash cut off, and lines beyond the checkpoint
cp -r at-3 torn
printf '{"kind":"step","step":41,"epoch":14,"loss":9,"lr":0.05}\n{"kind":"st' \
  >>torn/metrics.jsonl
must 2 "${train[@]}" --steps 40 --resume --out torn
check "a torn last line of metrics is mended" same_end whole torn

# what cannot be resumed
cp -r half kept
unchanged() { diff -r half kept; }
refuse() {
  local text=$1 pattern=$2
  shift 2
  refused "$text" 65 "$pattern" 4 "${train[@]}" --steps 60 --resume --out kept "$@"
}
refuse "another seed" 'seed 1, this run has 2' --seed 2
refuse "another batch" 'batch 60, this run has 50' --batch 50
refuse "another norm batch" 'norm-batch all, this run has 30' --norm-batch 30
refuse "no norm" 'norm batch, this run has none' --norm none
refuse "renorm" 'norm batch, this run has renorm' --norm renorm
refuse "another rate" 'lr 0.05, this run has 0.1' --lr 0.1
refuse "another schedule" 'schedule constant, this run has cosine' --schedule cosine
refuse "another momentum" 'momentum 0.9, this run has 0.5' --momentum 0.5
refuse "another decay" 'weight-decay 0, this run has 0.1' --weight-decay 0.1
refuse "another epsilon" 'norm-eps 1e-05, this run has 0.001' --norm-eps 1e-3
refuse "another number of samples" 'train-samples 150, this run has 140' --limit-train 140
refuse "another net" 'another net' --net mlp
mkdir other
"$make_idx" other 150 40 && put_bytes other/train-images-idx3-ubyte 1000 '\377\0\377'
refuse "other images" 'data-digest' --data other
refused "fewer steps than are done" 64 'beyond this run.s 30 steps' \
  4 "${train[@]}" --steps 30 --resume --out kept
check "a refused resume changes nothing" unchanged

refused "another augmentation" 65 'augment-shift 2, this run has 0' \
  2 "${augment[@]}" --steps 12 --resume --out augment-7 --augment-shift 0
refused "other classes" 65 'classes 2, this run has 4' \
  2 "${classes[@]}" --steps 30 --resume --out classes-13 --classes 4
refused "another optimizer" 65 'optimizer adamw, this run has sgd' \
  2 "${adam[@]}" --steps 30 --resume --out adam-13 --optimizer sgd
refused "another label smoothing" 65 'label-smoothing 0.1, this run has 0' \
  2 "${adam[@]}" --steps 30 --resume --out adam-13 --label-smoothing 0
refused "other moments" 65 'adam-beta2 0.999, this run has 0.99' \
  2 "${adam[@]}" --steps 30 --resume --out adam-13 --adam-beta2 0.99
refused "another dropout" 65 'dropout 0.3, this run has net' \
  2 "${dropout[@]}" --steps 12 --resume --out dropout-7 --dropout net
refused "other groups" 65 'norm group:5, this run has group:10' \
  2 "${group[@]}" --steps 12 --resume --out group-7 --norm group:10
other_limit() {
  refused "another $1" 65 "renorm-$1 $2, this run has $3" \
    2 "${renorm[@]}" --steps 30 --resume --out renorm-13 "--renorm-$1" "$3"
}
other_limit r-max 3 2.5
other_limit d-max 5 4
other_limit warmup 5 6
other_limit r-steps 25 26
other_limit d-steps 18 19

cosine=("${train[@]}" --schedule cosine)
must 2 "${cosine[@]}" --steps 10 --out cosine
refused "cosine to another length" 65 'steps 10, this run has 20' \
  2 "${cosine[@]}" --steps 20 --resume --out cosine

# a new run over an old one
must 2 "${train[@]}" --steps 5 --seed 3 --out kept
check "a new run keeps the old checkpoint aside" \
  same half/checkpoint.safetensors kept/checkpoint-old.safetensors
check "and the old weights" same half/model.safetensors kept/model-old.safetensors
must 2 "${train[@]}" --steps 5 --seed 3 --out new
check "and begins anew" same_run new kept
finish

#!/usr/bin/env bash
# A bit of memory turns over in one process, written there from outside as a debugger
# would: the process is named, nothing of it is saved, and the run goes on from before.
# shellcheck disable=SC2317 # functions are called by name
set -u
flip_bit=$(realpath "$5")
. "$(dirname "$0")/program_lib.sh"

mkdir data
"$make_idx" data 150 40 || exit 1
# At a rate of 0 weights stay as they are, and can be found in memory by what they are.
endless=100000000
train=(train --data data --progress none --batch 60 --lr 0)
must 2 "${train[@]}" --steps 1 --out first

if [ "$(id -u)" != 0 ] && [ "$(cat /proc/sys/kernel/yama/ptrace_scope 2>/dev/null || echo 0)" != 0 ]; then
  skip 'bits of memory: this system keeps other processes out'
  finish
fi

has_steps() {
  local n
  n=$(grep -c '"kind":"step"' "$1/metrics.jsonl" 2>/dev/null)
  [ "${n:-0}" -ge "$2" ]
}
ended() { ! kill -0 "$job" 2>/dev/null; }
# drift TEXT NP RANK PATTERN FOLDER ARGUMENT...: a run that ends by the bit of that process
drift() {
  start "$2" "${train[@]}" --steps $endless "${@:6}" --out "$5"
  wait_for $((60 * slowness)) has_steps "$5" 3
  if "$flip_bit" "$(cat "pid.$3")" first/model.safetensors dense1.weight >found.txt; then
    wait_for $((60 * slowness)) ended || kill "$job"
  else
    fail "$1: the weights are not found in memory"
    kill "$job"
  fi
  end_of_job
  check "$1: exit code 70" test "$code" = 70
  check "$1: one line names it" test "$(grep -c "^syncbn: .*$4" job.txt)" = 1
  check "$1: and nothing else is said" test "$(grep -cv '^\[warn\] Epoll' job.txt)" = 1
  check "$1: nothing was saved of it" absent "$5/model.safetensors"
}
others='are not those of the other'
drift 'one of three' 3 1 "behind step [0-9]*0 the weights of process 1 $others 2;" \
  three --check-every 10 --checkpoint-every $endless
check 'with its host' grep -q "host $(uname -n) " job.txt
drift 'the one that writes' 4 0 "behind step [0-9]* the weights of process 0 $others 3;" \
  writer --checkpoint-every 10
drift 'one of two' 2 1 'behind step [0-9]* the processes 0, 1 hold different weights' \
  two --check-every 7 --checkpoint-every 50

# what was saved before is sound
step=$(sed -n 's/.*behind step \([0-9]*\) .*/\1/p' job.txt)
end=$((step + 9))
must 2 "${train[@]}" --steps $end --out whole
must 3 "${train[@]}" --steps $end --resume --out two
check 'resumed as undisturbed' cmp whole/model.safetensors two/model.safetensors

refused 'another distance on one process' 78 'check-every: expected the same' 1 "${train[@]}" --steps 9 --out differs \
  : -np 1 "$program" "${train[@]}" --steps 9 --out differs --check-every 3
refused 'no distance' 64 'check-every' 2 "${train[@]}" --steps 9 --check-every 0 --out none
finish

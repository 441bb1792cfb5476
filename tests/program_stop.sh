#!/usr/bin/env bash
# A run that is asked to stop saves, ends with its own exit code, and goes on as if
# nothing had been.
# shellcheck disable=SC2317 # functions are called by name
set -u
. "$(dirname "$0")/program_lib.sh"

mkdir data
"$make_idx" data 150 40 || exit 1
train=(train --data data --progress none --batch 60 --steps 600 --checkpoint-every 100000)
must 3 "${train[@]}" --out whole

has_steps() { [ "$(grep -c '"kind":"step"' "$1/metrics.jsonl" 2>/dev/null)" -ge "$2" ]; }
steps_of() { grep '"kind":"step"' "$1/metrics.jsonl"; }
ends_as_whole() {
  must 2 "${train[@]}" --resume --out "$1"
  cmp whole/model.safetensors "$1/model.safetensors" &&
    diff <(steps_of whole) <(steps_of "$1")
}
# stopped TEXT REASON FOLDER: the job that ended said so, once, and left what resumes
stopped() {
  check "$1: exit code 75" test "$code" = 75
  check "$1: one line says why and how to go on" test "$(grep -c "^syncbn: stopped by $2 \
after step [0-9]* of 600, saved; go on with --resume --out $3" job.txt)" = 1
  check "$1: before its end" test ! -e "$3/model.safetensors"
  check "$1: resumed as undisturbed" ends_as_whole "$3"
}

# slow enough to be met: metrics are flushed at the end of each epoch of 3 steps
for signal in USR1 TERM; do
  for rank in 0 2; do
    out=$signal-$rank
    start 3 "${train[@]}" --out "$out"
    wait_for $((60 * slowness)) has_steps "$out" 3
    kill -$signal "$(cat pid.$rank)"
    end_of_job
    stopped "$signal to process $rank" "a signal" "$out"
  done
done

start 3 "${train[@]}" --out launcher
wait_for $((60 * slowness)) has_steps launcher 3
kill -USR1 "$job"
end_of_job
stopped "USR1 to mpirun" "a signal" launcher

start 3 "${train[@]}" --out halted
wait_for $((60 * slowness)) has_steps halted 3
: >halted/halt
end_of_job
stopped "a halt file" "a halt file" halted
check "the halt file is gone" absent halted/halt

start 3 "${train[@]}" --max-time 0.001 --out late
end_of_job
stopped "a limit of time" "its time limit" late

# the second signal does not wait for the step
start 1 "${train[@]}" --steps 100000000 --out impatient
wait_for $((60 * slowness)) has_steps impatient 3
kill -STOP "$(cat pid.0)"
kill -TERM "$(cat pid.0)"
kill -USR1 "$(cat pid.0)"
kill -CONT "$(cat pid.0)"
end_of_job
check "one signal of each kind: a stop" test "$code" = 75

# a process that waits for one which is held cannot end its step; the second signal ends it
catches_term() { ((16#$(awk '/^SigCgt/ {print $2}' "/proc/$1/status") >> 14 & 1)); }
heeded() { ! catches_term "$1"; }
start 2 "${train[@]}" --steps 100000000 --out held
wait_for $((60 * slowness)) has_steps held 3
waits=$(cat pid.0) holds=$(cat pid.1)
check "TERM is caught at first" catches_term "$waits"
kill -STOP "$holds"
kill -TERM "$waits"
check "the first TERM is heeded" wait_for 10 heeded "$waits"
kill -TERM "$waits"
wait_for 10 test ! -e "/proc/$waits"
kill -CONT "$holds" 2>/dev/null
end_of_job
check "the second TERM does not wait" test "$code" = 143

refused "another limit on one process" 78 'max-time: expected the same on all processes' 1 "${train[@]}" \
  --out differs : -np 1 "$program" "${train[@]}" --out differs --max-time 5
refused "no time at all" 64 'max-time' 2 "${train[@]}" --out none --max-time 0
finish

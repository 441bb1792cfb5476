#!/usr/bin/env bash
# A process that is stopped ends the job in time, by name; one that is only slow, or
# suspended with all others, does not.
# shellcheck disable=SC2317 # functions are called by name
set -u
stopper=$(realpath "$5")
. "$(dirname "$0")/program_lib.sh"

mkdir data
"$make_idx" data 150 40 || exit 1
limit=2
train=(train --data data --progress none --batch 60 --checkpoint-every 100000
  --stall-limit "$limit")
has_steps() {
  local n
  n=$(grep -c '"kind":"step"' "$1/metrics.jsonl" 2>/dev/null)
  [ "${n:-0}" -ge "$2" ]
}
# under_way FOLDER: a run of three processes that has made steps
under_way() {
  start 3 "${train[@]}" --steps 100000000 --out "$1"
  wait_for $((60 * slowness)) has_steps "$1" 3
}
steps_of() { grep '"kind":"step"' "$1/metrics.jsonl"; }
all_pids() { mapfile -t pids < <(cat pid.*); }
lives() { kill -0 "$1" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$1/status"; }
all_gone() {
  local file
  for file in pid.*; do
    if lives "$(cat "$file")"; then return 1; fi
  done
}
now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }

# at_most TEXT MS SINCE-MS
at_most() {
  local took=$(($(now_ms) - $3))
  check "$1 after $took ms, at most $2" test $took -le "$2"
}

sums=(memory mpi memory)
for rank in 0 1 2; do
  out=stopped-$rank
  SBN_SUMS=${sums[rank]} under_way "$out"
  since=$(now_ms)
  kill -STOP "$(cat pid.$rank)"
  end_of_job
  # The one that is woken finds after half a second that the others ended, for which mpirun
  # may wait a second more.
  at_most "process $rank stopped: an end" $((1000 * limit + 2000 * slowness)) "$since"
  check "exit code 86" ended_by 86 9
  # of others that are killed while they exchange data the MPI library may have its say
  check "one line" test "$(grep -c '^syncbn: ' job.txt)" = 1
  check "that names collective, layer, step and process: $(cat job.txt)" grep -qE \
    "^syncbn: no progress in [a-z_0-9.]+( [a-z]+)* \(call [0-9]+, step [0-9]+\): process [012] has waited [0-9.]+ s for process $rank, (stopped or gone, last in |which came and is \
stopped)" job.txt
  check "nobody is left" wait_for 2 all_gone
done

# Before MPI runs none has a watch yet. never_begins TEXT RANK WHO WHAT
never_begins() {
  local since
  start_stopped=$2 start 3 "${train[@]}" --out never
  wait_for $((60 * slowness)) test -s pid.0 -a -s pid.1 -a -s pid.2
  since=$(now_ms)
  wait_for 10 grep -q '^syncbn: ' job.txt
  at_most "process $2 $1: told" $((1000 * limit + 1000 * slowness)) "$since"
  end_of_job
  at_most "process $2 $1: an end" $((1000 * limit + 2000 * slowness)) "$since"
  check "exit code 86" ended_by 86 9
  # of one that begins as the others end the MPI library may have its say
  check "one line" test "$(grep -c '^syncbn: ' job.txt)" = 1
  check "that names it: $(cat job.txt)" grep -qE "^syncbn: no progress in the start of MPI: \
process [012] has waited 2\.[0-4] s for process $2 \($3\); allow" job.txt
  check "nobody is left" wait_for 2 all_gone
}
for rank in 1 0; do
  stop_in_mpi='' never_begins "stopped before it has begun" $rank 'not there'
  stop_in_mpi=$stopper never_begins "stopped where it starts MPI" $rank stopped
done

# What was saved is whole.
stopped_at_the_end() {
  local since
  stop_in_mpi=$stopper start_stopped=1 SBN_TEST_STOP_IN=end start 3 "${train[@]}" --steps 2 --out ended
  wait_for $((60 * slowness)) test -s ended/model.safetensors
  since=$(now_ms)
  end_of_job
  at_most "process 1 stopped at the end: an end" $((1000 * limit + 2000 * slowness)) "$since"
  check "exit code 86" ended_by 86 9
  check "one line" test "$(grep -c '^syncbn: ' job.txt)" = 1
  check "that names it: $(cat job.txt)" grep -q "^syncbn: no progress in the end of the program \
(call [0-9]*, step 2): process [02] has waited 2\.[0-4] s for process 1, which came and is stopped" job.txt
  check "nobody is left" wait_for 2 all_gone
  must 1 "${train[@]}" --steps 2 --out as_ended
  check "what it saved is whole" cmp as_ended/model.safetensors ended/model.safetensors
}
stopped_at_the_end

# goes_on TEXT FOLDER: the run under way is still there, and has lost nothing
goes_on() {
  kill -USR1 "$(cat pid.0)" 2>/dev/null
  end_of_job
  check "$1: no end" test "$code" = 75
  step=$(sed -n 's/^syncbn: stopped by a signal after step \([0-9]*\) of .*/\1/p' job.txt)
  must 2 "${train[@]}" --steps "${step:-1}" --resume --out "$2"
  must 2 "${train[@]}" --steps "${step:-1}" --out whole
  check "$1: weights of an undisturbed run" cmp whole/model.safetensors "$2/model.safetensors"
  check "$1: losses too" diff <(steps_of whole) <(steps_of "$2")
}

# Late twice, each time by a little less than the limit.
under_way slow
for _ in 1 2; do
  kill -STOP "$(cat pid.1)" 2>/dev/null
  sleep 1.6
  kill -CONT "$(cat pid.1)" 2>/dev/null
  sleep 0.2
done
goes_on "a straggler below the limit" slow

under_way suspended
all_pids
kill -STOP "${pids[@]}"
sleep $((limit + 2))
kill -CONT "${pids[@]}"
sleep 0.5
goes_on "a job suspended beyond the limit" suspended

refused "no time at all" 64 'stall-limit: expected a number from 0.1 or none' 2 \
  "${train[@]}" --steps 3 --out none --stall-limit 0
works "for ever" 2 "${train[@]}" --steps 3 --out none --stall-limit none
finish

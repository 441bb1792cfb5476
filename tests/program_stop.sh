#!/usr/bin/env bash
# A run that is asked to stop saves, ends with its own exit code, and goes on as if
# nothing had been.
# shellcheck disable=SC2317 # functions are called by name
set -u
. "$(dirname "$0")/program_lib.sh"

mkdir data
"$make_idx" data 150 40 || exit 1
# No run ends by itself before it is stopped, however fast the machine. Where each went on
# from is only known then, so all are taken to one common end.
endless=100000000
train=(train --data data --progress none --batch 60 --checkpoint-every 100000)

has_steps() {
  local n
  n=$(grep -c '"kind":"step"' "$1/metrics.jsonl" 2>/dev/null)
  [ "${n:-0}" -ge "$2" ]
}
steps_of() { grep '"kind":"step"' "$1/metrics.jsonl"; }
ends_as_whole() {
  must 2 "${train[@]}" --steps "$end" --resume --out "$1" &&
    cmp whole/model.safetensors "$1/model.safetensors" &&
    diff <(steps_of whole) <(steps_of "$1")
}
# under_way NP FOLDER: a run that has made steps; metrics appear at the end of an epoch of 3
under_way() {
  start "$1" "${train[@]}" --steps $endless --out "$2"
  wait_for $((60 * slowness)) has_steps "$2" 3
}
# saved TEXT REASON FOLDER: the job that ended said so, once, and left what resumes
halts=() end=0
saved() {
  local line step
  line=$(grep "^syncbn: stopped by $2 after step [0-9]* of $endless, saved; go on with \
--resume --out $3" job.txt)
  check "$1: one line says why and how to go on" test "$(wc -l <<<"$line")" = 1 -a -n "$line"
  check "$1: before its end" test ! -e "$3/model.safetensors"
  step=${line#* after step } step=${step%% of *}
  halts+=("$3")
  if [ "${step:-0}" -gt "$end" ]; then end=$step; fi
}
# stopped TEXT REASON FOLDER: with an exit code of its own, too
stopped() {
  check "$1: exit code 75" test "$code" = 75
  saved "$@"
}

for signal in USR1 TERM INT; do
  for rank in 0 2; do
    # sanitizers have less to find in it than time to lose
    if [ "$slowness" != 1 ] && [ $signal$rank != TERM2 ]; then continue; fi
    under_way 3 $signal-$rank
    kill -$signal "$(cat pid.$rank)"
    end_of_job
    stopped "$signal to process $rank" "a signal" $signal-$rank
  done
done

under_way 3 launcher
kill -USR1 "$job"
end_of_job
stopped "USR1 to mpirun" "a signal" launcher

# as Ctrl-C of a terminal does, for which Open MPI leaves two seconds and has one exit code
if [ ${#quiet[@]} -gt 0 ]; then
  for np in 1 3; do
    under_way $np ctrl-c-$np
    kill -INT "$job"
    end_of_job
    saved "INT to mpirun of $np" "a signal" ctrl-c-$np
  done
fi

under_way 3 halted
: >halted/halt
end_of_job
stopped "a halt file" "a halt file" halted
check "the halt file is gone" absent halted/halt

mkdir ended && : >ended/halt
works "a halt file at the last step: an end as any" 2 "${train[@]}" --steps 1 --out ended
check "that halt file is gone, too" absent ended/halt

start 3 "${train[@]}" --steps $endless --max-time 0.001 --out late
end_of_job
stopped "a limit of time" "its time limit" late

end=$((end + 7)) # something is left to do for the last of them, too
must 3 "${train[@]}" --steps $end --out whole
for folder in "${halts[@]}"; do
  check "$folder: resumed as undisturbed" ends_as_whole "$folder"
done

# the second signal does not wait for the step
under_way 1 impatient
kill -STOP "$(cat pid.0)"
kill -TERM "$(cat pid.0)"
kill -USR1 "$(cat pid.0)"
kill -CONT "$(cat pid.0)"
end_of_job
check "one signal of each kind: a stop" test "$code" = 75

# catches NUMBER PID
catches() { ((16#$(awk '/^SigCgt/ {print $2}' "/proc/$2/status") >> ($1 - 1) & 1)); }
heeded() { ! catches "$@"; }
has_ended() { ! grep -qs '^State:.[^Z]' "/proc/$1/status"; }

# starting FOLDER: MPI starts, and cannot without process 1
starting() {
  start_stopped=1 start 2 "${train[@]}" --steps $endless --out "$1"
  wait_for $((60 * slowness)) test -s pid.1 -a -s pid.0
  check "MPI starts: one stands still" wait_for 10 grep -q '^State:.T' "/proc/$(cat pid.1)/status"
  check "MPI starts: the other listens" wait_for $((10 * slowness)) catches 2 "$(cat pid.0)"
}
starting early
kill -USR1 "$(cat pid.0)"
# MPICH catches it, too
if [ ${#quiet[@]} -gt 0 ]; then
  check "USR1 while MPI starts: heard" wait_for 10 heeded 10 "$(cat pid.0)"
fi
kill -CONT "$(cat pid.1)"
end_of_job
stopped "USR1 while MPI starts" "a signal" early
check "USR1 while MPI starts: heeded behind the first step" grep -q ' after step 1 of ' job.txt
starting at-once
kill -TERM "$(cat pid.0)"
check "TERM while MPI starts: it ends" wait_for 10 has_ended "$(cat pid.0)"
# MPICH's launcher waits for the other; Open MPI's ends it, and might take its end for the first
if [ ${#quiet[@]} = 0 ]; then
  kill -TERM "$(cat pid.1)"
  kill -CONT "$(cat pid.1)"
fi 2>/dev/null
end_of_job
check "TERM while MPI starts: exit code 75, got $code" ended_by 75 15
check "TERM while MPI starts: nothing has begun" absent at-once
check "TERM while MPI starts: nothing to say" test "$(grep -c '^syncbn: ' job.txt)" = 0

# a process that waits for one which is held cannot end its step; the second signal ends it
under_way 2 held
waits=$(cat pid.0) holds=$(cat pid.1)
check "TERM is caught at first" catches 15 "$waits"
kill -STOP "$holds"
kill -TERM "$waits"
check "the first TERM is heeded" wait_for 10 heeded 15 "$waits"
kill -TERM "$waits"
wait_for 10 test ! -e "/proc/$waits"
kill -CONT "$holds" 2>/dev/null
end_of_job
check "the second TERM does not wait: $code" ended_by 143 15

refused "another limit on one process" 78 'max-time: expected the same on all processes' 1 "${train[@]}" \
  --steps 9 --out differs : -np 1 "$program" "${train[@]}" --steps 9 --out differs --max-time 5
refused "no time at all" 64 'max-time' 2 "${train[@]}" --steps 9 --out none --max-time 0
finish

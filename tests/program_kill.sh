#!/usr/bin/env bash
# A process is killed at a random moment, again and again, each time among another number
# of processes; the run that is resumed ends with the weights of the undisturbed one.
# SBN_KILL_RUNS kills (5, under sanitizers 2), drawn from SBN_KILL_SEED, which is printed.
# shellcheck disable=SC2317 # functions are called by name
set -u
. "$(dirname "$0")/program_lib.sh"

runs=${SBN_KILL_RUNS:-$((slowness == 1 ? 5 : 2))}
seed=${SBN_KILL_SEED:-$((SRANDOM % 32768))}
RANDOM=$seed
printf 'SBN_KILL_SEED=%d SBN_KILL_RUNS=%d\n' "$seed" "$runs"

mkdir data
"$make_idx" data 150 40 || exit 1
# A checkpoint every third step, so that many a kill meets one that is being written.
train=(train --data data --progress none --batch 60 --checkpoint-every 3 --eval-every 50)
steps_of() { grep '"kind":"step"' "$1/metrics.jsonl"; }
stamp() { stat -c %i "run/checkpoint.safetensors" 2>/dev/null; }
newer() { [ "$(stamp)" != "$before" ]; }
are_there() {
  local rank
  for ((rank = 0; rank < $1; rank++)); do [ -s "pid.$rank" ] || return; done
}
nap() { sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"; }
# nobody NP: none of the processes that were started is left
nobody() {
  local rank
  for ((rank = 0; rank < $1; rank++)); do
    kill -0 "$(cat pid.$rank)" 2>/dev/null && return 1
  done
  return 0
}

for ((k = 1; k <= runs; k++)); do
  np=$((1 + RANDOM % 4)) victim=$((RANDOM % np)) wait_ms=$((RANDOM % 1000)) before=$(stamp)
  start $np "${train[@]}" --steps 100000000 --resume --out run
  wait_for $((60 * slowness)) are_there $np
  when='its start'
  # every other time it has saved something before
  if ((k % 2)); then
    when='its first checkpoint'
    wait_for $((60 * slowness)) newer
    wait_ms=$((wait_ms / 4))
  fi
  nap $wait_ms
  kill -9 "$(cat pid.$victim)"
  end_of_job
  text="process $victim of $np killed $wait_ms ms after $when"
  check "$text: the job ends" test "$code" -gt 0 -a "$code" != 124
  check "$text: nobody is left" wait_for 5 nobody $np
done

# Both to an end beyond all that was done.
last=$(steps_of run | tail -n 1 | grep -o '"step":[0-9]*' | cut -d: -f2)
end=$((${last:-0} + 20))
must 2 "${train[@]}" --steps $end --out whole
must 3 "${train[@]}" --steps $end --resume --out run && [ -s stderr.txt ] && show_output
check "after $runs kills and $end steps: weights as undisturbed" \
  same whole/model.safetensors run/model.safetensors
check 'and every loss' diff <(timeless whole) <(timeless run)
check 'nothing else is left' test "$(cd run && ls -A | xargs)" = \
  'checkpoint-previous.safetensors checkpoint.safetensors metrics.jsonl model.safetensors run.json'

# By a launcher that starts it again by itself; now and then it is stopped, and given again
# with another number of processes.
if [ "$slowness" != 1 ] || [ ${#quiet[@]} = 0 ]; then
  skip 'launch/run: seen without sanitizers, with Open MPI'
  finish
fi
# processes of the run, from far behind as their parents are in between
victims() {
  local process
  for process in /proc/[0-9]*; do
    [ "$(readlink "$process/exe")" = "$program" ] && [ "$(readlink "$process/cwd")" = "$work" ] &&
      echo "${process#/proc/}"
  done 2>/dev/null
}
stamp() { stat -c %i again/checkpoint.safetensors 2>/dev/null; }
# launched NP STEPS ARGUMENT...: in the background
launched() {
  "$tests/../launch/run" --here --mpirun "$mpirun" -np "$1" --max-restarts 99 "$program" \
    "${train[@]}" --steps "$2" --out again "${@:3}" >>job.txt 2>&1 </dev/null &
  job=$!
}
: >job.txt
resume=() np=3 before=
restarted() { [ "$(restarts_of job.txt)" = "$k" ]; }
restarts_of() { grep -c '^launch/run: restart' "$1"; }
for ((k = 1; k <= runs; k++)); do
  if [ -z "$job" ]; then launched $np 100000000 "${resume[@]}"; fi
  wait_for $((60 * slowness)) newer
  nap $((RANDOM % 500))
  mapfile -t pids < <(victims)
  kill -9 "${pids[RANDOM % ${#pids[@]}]}"
  check "launch/run -np $np: starts again after kill $k" wait_for $((60 * slowness)) restarted
  before=$(stamp)
  if ((k % 3 == 0 || k == runs)); then
    wait_for $((60 * slowness)) newer
    kill -USR1 "$job"
    end_of_job
    check "launch/run -np $np: stopped with 75" test "$code" = 75
    resume=(--resume) np=$((1 + RANDOM % 4)) before=$(stamp)
  fi
done
last=$(steps_of again | tail -n 1 | grep -o '"step":[0-9]*' | cut -d: -f2)
end=$((${last:-0} + 20))
launched $np "$end" --resume
end_of_job
check "launch/run -np $np: exit code 0" test "$code" = 0
must 1 "${train[@]}" --steps "$end" --out once
check 'weights as undisturbed' same once/model.safetensors again/model.safetensors
check 'every loss, too' diff <(timeless once) <(timeless again)
finish

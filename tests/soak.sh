#!/usr/bin/env bash
# A long run under steady trouble: processes killed and stopped, launchers killed, signals,
# halt files, damaged and half-written files, restarts among 1 to 4 processes, drawn from a
# seed; in the end the weights and losses of an undisturbed run. Not part of the suite.
#
#   tests/soak.sh [MINUTES] [SEED]     30 minutes; build/syncbn, tests built
#
# Prints a line for each fault and a sum of them; exit code 1 where anything went wrong.
# shellcheck disable=SC2317 # functions are called by name
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
minutes=${1:-30} seed=${2:-$((SRANDOM % 32768))}
program=${SOAK_PROGRAM:-$root/build/syncbn} make_idx=${SOAK_MAKE_IDX:-$root/build/tests/make_idx}
. "$root/launch/lib.sh"
mpi_environment 4
export "${mpi_env[@]}"
set -- "$program" "$(command -v mpirun)" "$make_idx" 1
. "$root/tests/program_lib.sh"
RANDOM=$seed
printf 'soak of %s minutes, seed %d\n' "$minutes" "$seed"

mkdir data
"$make_idx" data 150 40 || exit 1
base=(train --data data --progress none --batch 60 --norm-batch 20 --momentum 0.9
  --eval-every 500 --log-every 10)
train=("${base[@]}" --steps 100000000 --checkpoint-every 5 --check-every 2)
faults=(kill kill kill-launcher term usr1 halt)
"$program" train --help | grep -q -- --stall-limit && faults+=(stop) && train+=(--stall-limit 3)

newest=run/checkpoint.safetensors previous=run/checkpoint-previous.safetensors
stamp() { stat -c %i $newest 2>/dev/null; }
newer() { [ "$(stamp)" != "$before" ] && [ -e $newest ]; }
pid_of() { cat "pid.$1" 2>/dev/null; }
are_there() {
  local rank
  for ((rank = 0; rank < $1; rank++)); do [ -s "pid.$rank" ] || return; done
}
nobody() {
  local rank
  for ((rank = 0; rank < np; rank++)); do kill -0 "$(pid_of $rank)" 2>/dev/null && return 1; done
  return 0
}
ended() { ! kill -0 "$job" 2>/dev/null; }
nap_ms() { sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"; }

# strike FAULT: expected is the exit code, or + for any but 0
strike() {
  local victim=$((RANDOM % np))
  expected=+
  case $1 in
    kill) kill -9 "$(pid_of $victim)" ;;
    kill-launcher) kill -9 "$job" ;;
    term) kill -TERM "$(pid_of $victim)" && expected=75 ;;
    usr1) kill -USR1 "$job" && expected=75 ;;
    halt) : >run/halt && expected=75 ;;
    stop)
      kill -STOP "$(pid_of $victim)"
      if [ "$np" -gt 1 ]; then
        expected=86
      else # nobody waits for it
        nap_ms 500
        kill -9 "$(pid_of $victim)"
      fi
      ;;
  esac
}

# Never both checkpoints: then no run could go on.
damage() {
  local at
  [ -s $newest ] && [ -s $previous ] || return
  at=$((RANDOM * 32768 + RANDOM))
  case $1 in
    cut) truncate -s $((at % $(size_of $newest))) $newest ;;
    flip) put_bytes $newest $((at % $(size_of $newest))) "\\$(printf '%o' $((RANDOM % 256)))" ;;
    remove) rm $newest ;;
    junk) printf '{"kind":"st' >>run/metrics.jsonl && : >$newest.tmp-4194305 ;;
  esac
}

declare -A count
note_event() { count[$1]=$((${count[$1]:-0} + 1)); }
deadline=$(awk -v now=$SECONDS -v m="$minutes" 'BEGIN { printf "%d", now + 60 * m }')
starts=0
while [ $SECONDS -lt "$deadline" ]; do
  np=$((RANDOM % 2 ? 4 : 1 + RANDOM % 4)) before=$(stamp)
  fault=${faults[RANDOM % ${#faults[@]}]} wait_ms=$((RANDOM % 1500))
  starts=$((starts + 1))
  start $np "${train[@]}" --resume --out run
  wait_for 60 are_there $np || fail "start $starts: no process"
  # a signal that comes before the program listens ends it; a kill may come at any time
  if [ "$fault" != kill ] || ((RANDOM % 2)); then wait_for 60 newer || fail "start $starts: no checkpoint"; fi
  nap_ms $wait_ms
  strike "$fault"
  wait_for 60 ended || fail "start $starts, $fault: no end"
  end_of_job
  note_event "$fault"
  if [ "$expected" = + ]; then good=$((code != 0)); else good=$((code == expected)); fi
  if [ $good = 0 ]; then
    fail "start $starts, $fault at np=$np: exit code $code"
    sed 's/^/        | /' job.txt
  fi
  wait_for 15 nobody || fail "start $starts, $fault at np=$np: a process is left"
  # a launcher that is killed leaves its files
  if [ "$fault" = kill-launcher ]; then rm -rf "${shared:?}"/* .mpi/*; fi
  grep -q 'going on from checkpoint-previous' job.txt && note_event 'fallbacks'
  grep -qE 'nor is there another|hold different|are not those' job.txt && fail "$(cat job.txt)"
  if ((RANDOM % 3 == 0)); then
    kinds=(cut flip remove junk)
    kind=${kinds[RANDOM % 4]}
    damage "$kind" && note_event "file: $kind"
  fi
done 2>shell.txt # where bash tells of each launcher that was killed

last=$(grep '"kind":"step"' run/metrics.jsonl | tail -n 1 | grep -o '"step":[0-9]*' | cut -d: -f2)
end=$((${last:-0} + 20))
printf '%d starts, %d steps, faults:\n' $starts "$last"
for event in "${!count[@]}"; do printf '  %-16s %d\n' "$event" "${count[$event]}"; done | sort
limit_s=7200
must 4 "${base[@]}" --steps $end --out whole
must 3 "${base[@]}" --steps $end --resume --out run
check 'weights as undisturbed' same whole/model.safetensors run/model.safetensors
check 'every loss as undisturbed' diff <(timeless whole) <(timeless run)
check 'no temporary, no lock' test -z "$(find run -name '*.tmp-*' -o -name '*.lock')"
check 'nobody is left' test -z "$(pgrep -f "$work" || true)"
finish

#!/usr/bin/env bash
# How long one training step takes from the command to the prompt, and where the time
# goes: each round times every stage once, a stage being a run that does one thing more
# than that before it. Prints a table.
set -euo pipefail

usage() {
  cat <<'END'
usage: tests/bench/startup.sh [-r ROUNDS] [-n PROCESSES] [-p PROGRAM]
  -r  rounds, at least 7 for figures to publish (7)
  -n  processes (4)
  -p  the program (build/syncbn)
environment:
  DATA    data set (fashion-mnist)
  LAUNCH  what starts processes (launch/local); "mpirun --quiet" leaves its settings out
END
}

rounds=7 processes=4 program=build/syncbn
while getopts r:n:p:h option; do
  case $option in
    r) rounds=$OPTARG ;;
    n) processes=$OPTARG ;;
    p) program=$OPTARG ;;
    h) usage; exit 0 ;;
    *) usage >&2; exit 64 ;;
  esac
done
for number in "$rounds" "$processes"; do
  if ! [[ $number =~ ^[1-9][0-9]*$ ]]; then
    echo "startup: '$number' is not a count" >&2
    exit 64
  fi
done
program=$(realpath "$program")
cd "$(dirname "$0")/../.."
read -ra launch <<<"${LAUNCH:-launch/local}"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

step=("$program" train --steps 1 --progress none --out "$scratch/run")
stages=('mpirun true' '+ MPI starts and ends' '+ a step, files' '+ data is read' '+ test set')
command_of() { # stage
  case $1 in
    0) command=(true) ;;
    1) command=("$program" --version) ;;
    2) command=("${step[@]}" --data synthetic --limit-test 16) ;;
    3) command=("${step[@]}" --data "${DATA:-fashion-mnist}" --limit-test 16) ;;
    4) command=("${step[@]}" --data "${DATA:-fashion-mnist}") ;;
  esac
}

for ((round = 1; round <= rounds; round++)); do
  for stage in "${!stages[@]}"; do
    command_of "$stage"
    rm -rf "$scratch/run"
    began=${EPOCHREALTIME/[.,]/}
    if ! "${launch[@]}" -np "$processes" "${command[@]}" >"$scratch/log" 2>&1; then
      echo "startup: failed: ${command[*]}" >&2
      tail -n 20 "$scratch/log" >&2
      exit 1
    fi
    ended=${EPOCHREALTIME/[.,]/}
    printf '%s\t%s\t%s\t%s\n' "$stage" "$round" $((ended - began)) "${stages[stage]}" \
      >>"$scratch/times"
  done
  echo "round $round of $rounds; load $(cut -d' ' -f1 /proc/loadavg)" >&2
done

echo
echo "Milliseconds of ${launch[*]} -np $processes on $(nproc) cores: $rounds rounds; what a"
echo 'stage adds is the median of its differences to the stage before within a round.'
echo
awk -F'\t' '
  function median(list, n, i, j, t) { # sorts list[1…n]
    for (i = 2; i <= n; i++) {
      t = list[i]
      for (j = i - 1; j >= 1 && list[j] > t; j--) list[j + 1] = list[j]
      list[j + 1] = t
    }
    return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
  }
  { time[$1, $2] = $3 / 1000; name[$1] = $4; if ($2 > n) n = $2; if ($1 > last) last = $1 }
  END {
    print "| stage | median (min–max) | adds |"
    print "|---|---:|---:|"
    for (s = 0; s <= last; s++) {
      for (r = 1; r <= n; r++) {
        all[r] = time[s, r]
        more[r] = time[s, r] - (s ? time[s - 1, r] : 0)
      }
      m = median(all, n)
      printf "| %s | %.0f (%.0f–%.0f) | %.0f |\n", name[s], m, all[1], all[n], median(more, n)
    }
  }' "$scratch/times"

#!/usr/bin/env bash
# One process of several gets too little memory, by a limit on its address space: the job
# ends with one line that says which process wanted how many bytes for what.
set -u
. "$(dirname "$0")/program_lib.sh"

if [ "$slowness" != 1 ]; then
  skip 'memory: sanitizers take more than any limit'
  finish
fi
if ! command -v prlimit >/dev/null; then
  skip 'memory: no prlimit (package util-linux)'
  finish
fi
mkdir data
"$make_idx" data 150 40 || exit 1
# 190 MB of weights, as many of gradients and of each of the optimizer's arrays
printf '%s\n' 'input 1x28x28' 'linear a out=60000' 'relu' 'linear b out=10' 'logsoftmax' >wide.net
train=(train --data data --net wide.net --batch 16 --steps 2 --progress none --out out)

# What a process needs before the program has anything to do.
least=100
until prlimit --as=${least}000000 "$program" --version >/dev/null 2>&1; do
  least=$((least + 20))
  [ $least -lt 2000 ] || break
done
check "a process of MPI needs up to $least MB" test $least -lt 2000

# short EXTRA NP RANK: that process has so many MB more
short() {
  local np=$2 rank=$3 before=() after=()
  [ "$rank" -gt 0 ] && before=("$rank" "$program" "${train[@]}" : -np)
  [ "$rank" -lt $((np - 1)) ] && after=(: -np $((np - 1 - rank)) "$program" "${train[@]}")
  limit_s=$((60 * slowness)) mpi -np "${before[@]}" 1 prlimit --as=$((least + $1))000000 \
    "$program" "${train[@]}" "${after[@]}"
  judge_short "$1" "$rank" "$np"
}
judge_short() {
  local who=
  [ "$2" = 0 ] || who="process $2: "
  if [ "$code" = 70 ] && [ "$(wc -l <stderr.txt)" = 1 ] &&
    grep -qE "^syncbn: ${who}[a-zA-Z0-9 ]+: no memory for [0-9]+ bytes$" stderr.txt; then
    pass "process $2 of $3 has $1 MB more: $(cat stderr.txt)"
  else
    fail "process $2 of $3 has $1 MB more: exit code $code"
    show_output
  fi
}
short 250 2 0
short 300 3 2
short 400 3 1
short 600 2 1
finish

#!/usr/bin/env bash
# launch/local: exit codes, signals and what it says, with programs that need no build.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
local=$top/launch/local
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
passed=0 failed=0

# expect TEXT CODE LINES ARGUMENT...: exit code, and lines on standard error
expect() {
  local text=$1 want=$2 lines=$3 code=0
  shift 3
  timeout -k 5 60 "$local" "$@" >out.txt 2>err.txt </dev/null || code=$?
  if [ "$code" = "$want" ] && [ "$(wc -l <err.txt)" = "$lines" ]; then
    passed=$((passed + 1))
    printf 'ok      %s\n' "$text"
  else
    failed=$((failed + 1))
    printf 'FAILED  %s: exit %s, expected %s; %s lines on stderr, expected %s\n' "$text" "$code" \
      "$want" "$(wc -l <err.txt)" "$lines"
    cat err.txt
  fi
}

expect 'a program that ends well' 0 0 -np 3 true
expect 'its output, from every process' 0 0 -np 3 echo here
if [ "$(grep -c here out.txt)" = 3 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
expect 'the exit code of all processes, without a banner' 65 0 -np 2 sh -c 'exit 65'
# shellcheck disable=SC2016 # for the inner shell
expect 'a killed process, in one line' 137 1 -np 2 sh -c 'kill -9 $$'
expect 'no program' 64 1 -np 2
expect 'a bad number of processes' 64 1 -np two true
expect 'an unknown option' 64 1 --no-such-option true
expect 'a program that is not there' 127 1 -np 1 no-such-program-anywhere
expect 'dry run' 0 0 --dry-run -np 4 syncbn train
if grep -q 'OMPI_MCA_pml=ob1 .*mpirun.* -np 4 .*syncbn train$' out.txt; then
  passed=$((passed + 1))
else
  failed=$((failed + 1))
  cat out.txt
fi
OMPI_MCA_pml=^cm expect 'settings of the user stay' 0 0 --dry-run -np 4 syncbn train
if grep -q 'OMPI_MCA_pml=.*^cm ' out.txt; then
  passed=$((passed + 1))
else
  failed=$((failed + 1))
  cat out.txt
fi
printf '%d passed, %d failed\n' "$passed" "$failed"
exit $((failed > 0))

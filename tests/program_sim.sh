#!/usr/bin/env bash
# shellcheck disable=SC2317 # functions are called by name
# Steps on a simulated cluster: the library's messages take what they take alone, repeatably,
# and are those that a step is documented to have.
set -u
module=$(realpath "$1") sim=$(cd "$(dirname "$0")" && pwd)/sim
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
check() {
  local text=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
    echo "ok      $text"
  else
    failed=$((failed + 1))
    echo "FAILED  $text"
  fi
}
field() { grep -o "\"$2\":{[^}]*}" "$1" | grep -o "\"$3\":[^,}]*" | cut -d: -f2; }
# Printed in nanoseconds.
near() { awk -v a="$1" -v b="$2" 'BEGIN { d = a - b; exit !(a > 0 && d * d <= 1e-10 * a * a) }'; }
above() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a > b) }'; }
run() { MODULE=$module "$sim/scaling.sh" -n "$1" -p "$2" -o "$work/$3" >"$work/$3.txt" 2>&1; }

check "16 processes on Ethernet" run 16 ethernet one
check "and again" run 16 ethernet two
check "not a digit differs" cmp "$work/one/runs.jsonl" "$work/two/runs.jsonl"
check "16 processes on a fabric" run 16 fabric fast
runs=$work/one/runs.jsonl
for part in norm_s gradients_s; do
  check "the library's messages take what they take alone: $part" \
    near "$(field "$runs" step $part)" "$(field "$runs" exact $part)"
  check "faster on the fabric: $part" \
    above "$(field "$runs" exact $part)" "$(field "$work/fast/runs.jsonl" exact $part)"
done
# cnn: norms of 20 and 50 channels; headers of 4, counts of 2, words of 5 a sum
check "bytes of the norms" test "$(field "$runs" exact norm_bytes)" = \
  $((8 * (4 * (4 + 2) + (10 + 8) * (20 + 50))))
check "plain sums send less" above "$(field "$runs" exact gradient_bytes)" \
  "$(field "$runs" plain gradient_bytes)"
# 32 processes a host: first within each, then across, against Open MPI's choice
check "64 processes, two levels too" run 64 ethernet hosts
for part in norm_s gradients_s; do
  for how in flat levels; do
    grep "\"per_host\":32,\"algorithm\":\"$how\"" "$work/hosts/runs.jsonl" >"$work/$how"
  done
  check "two levels are faster: $part" \
    above "$(field "$work/flat" exact $part)" "$(field "$work/levels" exact $part)"
done
[ "$failed" = 0 ] || cat "$work"/*.txt
echo "$passed passed, $failed failed"
exit $((failed > 0))

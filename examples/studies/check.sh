#!/usr/bin/env bash
# Do the studies have the shapes that the literature leads one to expect? Reads summary.csv
# and differences.csv of the folders given, or of those beside this script; each is named
# after its study, or begins with "study-".
set -u

passed=0 failed=0
pass() {
  passed=$((passed + 1))
  printf 'ok      %s\n' "$*"
}
fail() {
  failed=$((failed + 1))
  printf 'FAILED  %s\n' "$*"
}

# rows FILE: method;x;z;chosen;metric;n;mean;sd;low;high, empty where there is none
rows() {
  awk -F'"' 'NR == 1 { search = /,z,chosen,/; next }
    { n = split($3, c, ","); line = $2 ";" c[2] ";" (search ? c[3] ";" c[4] : ";1")
      for (i = search ? 5 : 3; i <= n; i++) line = line ";" c[i]
      print line }' "$1"
}

# get FILE METHOD X METRIC COLUMN: X empty: of a method on which x has no effect
get() {
  local column
  case $5 in n) column=6 ;; mean) column=7 ;; sd) column=8 ;; low) column=9 ;; high) column=10 ;; esac
  rows "$1" | awk -F';' -v m="$2" -v x="$3" -v k="$4" -v c=$column \
    '$1 == m && $2 == x && $5 == k && $4 == 1 { print $c; exit }'
}

# holds TEXT EXPRESSION NAME=VALUE...: an expression of awk over the values
holds() {
  local text=$1 expression=$2 pair arguments=()
  shift 2
  for pair in "$@"; do
    if [ -z "${pair#*=}" ]; then
      fail "$text: no value of ${pair%%=*}"
      return
    fi
    arguments+=(-v "$pair")
  done
  if awk "${arguments[@]}" "BEGIN { exit !($expression) }"; then
    pass "$text ($*)"
  else
    fail "$text: expected $expression ($*)"
  fi
}

check_norm_batch() {
  local s=$1/summary.csv d=$1/differences.csv most
  most=$(rows "$s" | awk -F';' '$1 == "batch norm" { print $2 }' | sort -n | tail -n 1)
  holds "norm-batch: the error of batch norm rises as the norm batch falls to 4 and 2" \
    'two > four_high && four > large_high' \
    two="$(get "$s" 'batch norm' 2 test_error low)" \
    four_high="$(get "$s" 'batch norm' 4 test_error high)" \
    four="$(get "$s" 'batch norm' 4 test_error low)" \
    large_high="$(get "$s" 'batch norm' "$most" test_error high)"
  holds "norm-batch: at 2 group norm, which stays, is better than batch norm" 'high < 0' \
    high="$(get "$d" 'group norm' 2 test_error high)"
  holds "norm-batch: at 2 renorm lies between" 'high < 0 && renorm > group' \
    high="$(get "$d" renorm 2 test_error high)" \
    renorm="$(get "$s" renorm 2 test_error mean)" \
    group="$(get "$s" 'group norm' '' test_error mean)"
}

check_ghost() {
  local s=$1/summary.csv small
  small=$(get "$s" 'batch 64' '' test_error mean)
  holds "ghost: a large batch is worse than a small one after as many epochs" 'whole > small' \
    whole="$(get "$s" 'same rate' 1024 test_error mean)" small="$small"
  # at one rate, or it might be the rate that does it
  holds "ghost: ghost batches close a part of the gap" 'ghost < whole - 0.1 * (whole - small)' \
    ghost="$(get "$s" '√ scaling' 16 test_error mean)" \
    whole="$(get "$s" '√ scaling' 1024 test_error mean)" small="$small"
}

check_non_iid() {
  local s=$1/summary.csv
  holds "non-iid: batch norm loses clearly with 2 classes" 'few > all_high + 0.02' \
    few="$(get "$s" 'batch norm' 2 test_error low)" \
    all_high="$(get "$s" 'batch norm' 10 test_error high)"
  holds "non-iid: renorm loses much less" 'few_r - all_r < 0.5 * (few_b - all_b)' \
    few_r="$(get "$s" renorm 2 test_error mean)" all_r="$(get "$s" renorm 10 test_error mean)" \
    few_b="$(get "$s" 'batch norm' 2 test_error mean)" \
    all_b="$(get "$s" 'batch norm' 10 test_error mean)"
}

check_ioffe2015() {
  local s=$1/summary.csv d=$1/differences.csv step
  holds "ioffe2015: there are early evaluations" 'n > 0' \
    n="$(rows "$s" | grep -c 'error_at/')"
  for step in $(rows "$s" | awk -F';' '$5 ~ "^error_at/" { print $5 }' | sort -u -t/ -k2n); do
    holds "ioffe2015: with norm ahead, $step" 'low > 0' low="$(get "$d" without 0 "$step" low)"
  done
  holds "ioffe2015: percentiles move less with norm" 'low > 0' \
    low="$(get "$d" without 0 drift low)"
}

# How many values of x a method bears, to 3 points from the best of all.
borne() {
  rows "$1" | awk -F';' -v m="$2" '$5 == "test_error" { e[$1, $2] = $7; x[$2]; if (b == "" || $7 < b) b = $7 }
    END { for (i in x) n += (m, i) in e && e[m, i] <= b + 0.03; print n + 0 }'
}
check_tolerance() {
  holds "$2: norm tolerates more values" 'with > without' \
    with="$(borne "$1/summary.csv" 'with norm')" without="$(borne "$1/summary.csv" without)"
}

check_shift() {
  holds "shift: re-estimated statistics recover accuracy" 'high < 0' \
    high="$(get "$1/summary.csv" 'batch norm' '' reestimated_gain high)"
}

check_sgd_batch() {
  local chosen
  chosen=$(rows "$1/summary.csv" | awk -F';' '$4 == 1 && $5 == "steps_to_target" { print $2, $7 }' | sort -n)
  holds "sgd-batch: steps fall with the batch" 'first > 2 * last' \
    first="$(head -n 1 <<<"$chosen" | cut -d' ' -f2)" last="$(tail -n 1 <<<"$chosen" | cut -d' ' -f2)"
  holds "sgd-batch: and flatten" 'last_images > 1.25 * first_images' \
    first_images="$(awk 'NR == 1 { print $1 * $2 }' <<<"$chosen")" \
    last_images="$(awk '{ v = $1 * $2 } END { print v }' <<<"$chosen")"
}

check_processes() {
  local s=$1/summary.csv most
  most=$(rows "$s" | cut -d';' -f2 | sort -n | tail -n 1)
  holds "processes: local norm gets worse with processes" 'local > together' \
    local="$(get "$s" 'local norm' "$most" test_error low)" \
    together="$(get "$s" 'synchronized norm' '' test_error high)"
}

shopt -s nullglob
if [ $# = 0 ]; then set -- "$(dirname "$0")"/*/; fi
for folder in "$@"; do
  folder=${folder%/}
  name=${folder##*/} name=${name#study-} name=${name%-quick}
  if ! [ -e "$folder/summary.csv" ]; then
    fail "$folder: expected a summary.csv"
    continue
  fi
  case $name in
    norm-batch) check_norm_batch "$folder" ;;
    ghost) check_ghost "$folder" ;;
    non-iid) check_non_iid "$folder" ;;
    ioffe2015) check_ioffe2015 "$folder" ;;
    learning-rate | init) check_tolerance "$folder" "$name" ;;
    shift) check_shift "$folder" ;;
    sgd-batch) check_sgd_batch "$folder" ;;
    processes) check_processes "$folder" ;;
    *) printf 'skipped %s: no expectations of such a study\n' "$folder" ;;
  esac
done
printf '%d passed, %d failed\n' $passed $failed
exit $((failed > 0))

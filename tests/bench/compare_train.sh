#!/usr/bin/env bash
# Training speed of syncbn beside PyTorch, in one run: each round times every contender
# once, the order turning from round to round, so that a machine that slows down slows
# them all. Prints a table.
set -euo pipefail

usage() {
  cat <<'END'
usage: tests/bench/compare_train.sh [-n NET] [-r ROUNDS] [-b "BATCH …"] [-i IMAGES] [-o FILE]
  -n  cnn or resnet8 (cnn)
  -r  rounds, at least 5 for figures to publish (5)
  -b  global batch sizes (64 256)
  -i  images: syncbn trains on so many once, the peer on a tenth of them six times (60000)
  -o  every measurement as a JSON line (out/bench/compare_train.jsonl)
environment:
  PYTHON  a Python that can import torch (python3); without one the peer is left out
  DATA    data set of syncbn (fashion-mnist)
END
}

net=cnn rounds=5 batches="64 256" images=60000 results=out/bench/compare_train.jsonl
while getopts n:r:b:i:o:h option; do
  case $option in
    n) net=$OPTARG ;;
    i) images=$OPTARG ;;
    r) rounds=$OPTARG ;;
    b) batches=$OPTARG ;;
    o) results=$OPTARG ;;
    h) usage; exit 0 ;;
    *) usage >&2; exit 64 ;;
  esac
done
for number in "$rounds" "$images" $batches; do
  if ! [[ $number =~ ^[1-9][0-9]*$ ]]; then
    echo "compare_train: '$number' is not a count" >&2
    exit 64
  fi
done

cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
data=${DATA:-fashion-mnist}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$(dirname "$results")"
: >"$results"

# Contender: name, then processes and layout of the peer.
peers=()
if "$python" -c 'import torch' 2>/dev/null; then
  peers=("torch np=1:1:nchw" "torch np=1 channels_last:1:nhwc"
         "torch np=2 sync:2:nchw" "torch np=2 sync channels_last:2:nhwc")
else
  echo "torch: skipped, $python can't import it (PYTHON chooses another)"
fi
ours="syncbn np=2"

rate_of() { sed -n 's/.*"images_per_s": *\([0-9.eE+-]*\).*/\1/p' | tail -n 1; }

time_ours() { # batch
  rm -rf "$scratch/run"
  if ! OMP_NUM_THREADS=1 launch/local -np 2 syncbn train --net "$net" --data "$data" \
    --batch "$1" --limit-train "$images" --epochs 1 --lr 0.05 --momentum 0.9 --seed 1 --out "$scratch/run" \
    >"$scratch/log" 2>&1; then
    echo "compare_train: syncbn train failed:" >&2
    tail -n 20 "$scratch/log" >&2
    return 1
  fi
  sed -n '/"kind": *"done"/p' "$scratch/run/metrics.jsonl" | rate_of
}

time_peer() { # batch processes layout
  if ! "$python" -B tests/bench/peers/torch_train.py --net "$net" --batch "$1" --processes "$2" \
    --layout "$3" --images $(((images + 9) / 10)) >"$scratch/log" 2>&1; then
    echo "compare_train: torch_train.py failed:" >&2
    tail -n 20 "$scratch/log" >&2
    return 1
  fi
  rate_of <"$scratch/log"
}

measure() { # round batch contender
  local name=${3%%:*} rate processes layout
  if [ "$name" = "$ours" ]; then
    rate=$(time_ours "$2")
  else
    IFS=: read -r _ processes layout <<<"$3"
    rate=$(time_peer "$2" "$processes" "$layout")
  fi
  [ -n "$rate" ] || { echo "compare_train: $name gave no images_per_s" >&2; return 1; }
  printf '{"kind":"bench","what":"compare_train","net":"%s","contender":"%s","batch":%d,' \
    "$net" "$name" "$2" >>"$results"
  printf '"round":%d,"images_per_s":%s}\n' "$1" "$rate" >>"$results"
  printf '%d\t%d\t%s\t%s\n' "$2" "$1" "$name" "$rate" >>"$scratch/rates"
}

contenders=("$ours" "${peers[@]}")
count=${#contenders[@]}
for ((round = 1; round <= rounds; round++)); do
  for batch in $batches; do
    for ((i = 0; i < count; i++)); do
      measure "$round" "$batch" "${contenders[(i + round - 1) % count]}"
    done
  done
  echo "round $round of $rounds; load $(cut -d' ' -f1 /proc/loadavg)" >&2
done

echo
echo "Images per second: median (min–max) of $rounds rounds. The ratio is syncbn's rate"
echo "over the contender's, taken within each round."
echo
awk -F'\t' -v ours="$ours" '
  function median(list, n, i, j, t) { # sorts list[1…n]
    for (i = 2; i <= n; i++) {
      t = list[i]
      for (j = i - 1; j >= 1 && list[j] > t; j--) list[j + 1] = list[j]
      list[j + 1] = t
    }
    return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
  }
  function whole(x, s) { # 12345 as 12,345
    s = sprintf("%.0f", x)
    while (s ~ /[0-9][0-9][0-9][0-9]/) {
      match(s, /[0-9][0-9][0-9]($|,)/)
      s = substr(s, 1, RSTART - 1) "," substr(s, RSTART)
    }
    return s
  }
  {
    key = $1 FS $3
    if (!(key in seen)) { seen[key] = 1; keys[++n] = key }
    rate[key, $2] = $4
    if ($2 > rounds) rounds = $2
  }
  END {
    print "| batch | contender | images/s | ratio |"
    print "|---:|---|---:|---:|"
    for (k = 1; k <= n; k++) {
      split(keys[k], part, FS)
      for (r = 1; r <= rounds; r++) {
        rates[r] = rate[keys[k], r]
        ratios[r] = rate[part[1] FS ours, r] / rates[r]
      }
      m = median(rates, rounds)
      text = sprintf("%s (%s–%s)", whole(m), whole(rates[1]), whole(rates[rounds]))
      if (part[2] == ours) ratio = "1"
      else {
        m = median(ratios, rounds)
        ratio = sprintf("%.2f (%.2f–%.2f)", m, ratios[1], ratios[rounds])
      }
      printf "| %s | %s | %s | %s |\n", part[1], part[2], text, ratio
    }
  }' "$scratch/rates"

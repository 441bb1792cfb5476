#!/usr/bin/env bash
# The picture of the README: `cnn` on Fashion-MNIST with normalization and without.
set -euo pipefail

usage() {
  cat <<'END'
usage: examples/plot_norm.sh [--draw] [FILE.svg]
Trains with normalization into out/plot/batch and without into out/plot/none (same seed,
two processes), then draws training loss and test accuracy with gnuplot into FILE.svg and
FILE.png (examples/norm_on_off.svg).
  --draw   only draw, from the metrics that lie there
END
}

train=yes picture=
for argument in "$@"; do
  case $argument in
    --draw) train=no ;;
    -h | --help) usage; exit 0 ;;
    *.svg) picture=$(realpath -m -- "$argument") ;;
    *) usage >&2; exit 64 ;;
  esac
done
cd "$(dirname "$0")/.."
picture=${picture:-examples/norm_on_off.svg}
die() { # code, text
  echo "plot_norm: $2" >&2
  exit "$1"
}
command -v gnuplot >/dev/null || die 69 "install gnuplot-nox first"

epochs=3 batch=64 lr=0.05 momentum=0.9 seed=1
if [ $train = yes ]; then
  for norm in batch none; do
    launch/local -np 2 syncbn train --net cnn --data fashion-mnist --norm $norm \
      --batch $batch --epochs $epochs --lr $lr --momentum $momentum --seed $seed \
      --out out/plot/$norm
  done
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for norm in batch none; do
  metrics=out/plot/$norm/metrics.jsonl
  [ -r $metrics ] || die 66 "$metrics is missing; run without --draw"
  # The loss of one batch jumps about: means over some hundred runs of steps.
  sed -n 's/.*"kind":"step","step":\([0-9]*\),.*"loss":\([0-9.eE+-]*\).*/\1 \2/p' $metrics |
    awk '{ step[NR] = $1; loss[NR] = $2 }
      END {
        run = int((NR + 99) / 100)
        for (i = 1; i + run - 1 <= NR; i += run) {
          sum = 0
          for (j = i; j < i + run; j++) sum += loss[j]
          print (step[i] + step[i + run - 1]) / 2, sum / run
        }
      }' >"$scratch/$norm.loss"
  sed -n 's/.*"kind":"eval","epoch":\([0-9]*\),.*"test_accuracy":\([0-9.e-]*\).*/\1 \2/p' \
    $metrics >"$scratch/$norm.accuracy"
  for table in "$scratch/$norm".*; do
    [ -s "$table" ] || die 65 "$metrics has no ${table##*.}"
  done
done

cat >"$scratch/plot.gp" <<END
# Blue and vermilion stay apart for every colour vision; dashes and marks say it again.
set style line 1 lc rgb "#0072B2" lw 2.5 pt 7 ps 0.8
set style line 2 lc rgb "#D55E00" lw 2.5 pt 4 ps 0.9 dt (8,4)
set border 3 lc rgb "#444444"
set tics nomirror out textcolor rgb "#222222"
set grid lc rgb "#dddddd" lw 1 lt 1
with = "with batch normalization"
without = "without"
set multiplot layout 1,2 title "cnn on Fashion-MNIST: batch $batch, lr $lr, seed $seed" \\
  font ",16" margins 0.09,0.98,0.19,0.88 spacing 0.10

set xlabel "step" offset 0,0.4
set ylabel "training loss (log scale)" offset 1
stats "$scratch/batch.loss" using 2 name "A" nooutput
stats "$scratch/none.loss" using 2 name "B" nooutput
low = A_min < B_min ? A_min : B_min
high = A_max > B_max ? A_max : B_max
set logscale y
set yrange [0.9 * low:1.1 * high]
set ytics (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1, 1.5, 2)
set key top right samplen 4 invert
plot "$scratch/none.loss" with lines ls 2 title without, \\
     "$scratch/batch.loss" with lines ls 1 title with

unset logscale y
set yrange [*:*]
set xlabel "epoch" offset 0,0.4
set ylabel "test accuracy (%)" offset 1
set ytics auto
stats "$scratch/batch.accuracy" using 1 nooutput
set xrange [0.6:STATS_max + 0.5]
set xtics 1
set offsets 0, 0, graph 0.12, graph 0.12
set key bottom right invert
plot "$scratch/none.accuracy" using 1:(\$2 * 100) with linespoints ls 2 title without, \\
     "$scratch/batch.accuracy" using 1:(\$2 * 100) with linespoints ls 1 title with, \\
     "$scratch/none.accuracy" using 1:(\$2 * 100):(sprintf("%.1f", \$2 * 100)) \\
       with labels offset 2.2,-0.8 textcolor rgb "#D55E00" notitle, \\
     "$scratch/batch.accuracy" using 1:(\$2 * 100):(sprintf("%.1f", \$2 * 100)) \\
       with labels offset -1.5,0.8 textcolor rgb "#0072B2" notitle
unset multiplot
END

draw() { # terminal file
  gnuplot -e "set terminal $1; set output '$2'" "$scratch/plot.gp"
  echo "plot_norm: drew $2"
}
mkdir -p "$(dirname "$picture")"
style='background "white" font'
draw "svg size 960,400 $style 'Helvetica,14'" "$picture"
draw "pngcairo size 1440,600 fontscale 1.5 linewidth 1.5 pointscale 1.5 $style 'Sans,10'" \
  "${picture%.svg}.png"

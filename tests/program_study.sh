#!/usr/bin/env bash
# A study leaves the same report, summary and trials at any number of processes, after
# being killed or stopped in the middle, and without gnuplot.
# shellcheck disable=SC2317 # functions are called by name
set -u
. "$(dirname "$0")/program_lib.sh"

mkdir data
"$make_idx" data 200 60 || exit 1
# shellcheck disable=SC2054 # commas belong to the values
grid=(study grid --data data --vary norm-batch=4,20 --vary norm=batch,renorm,none --batch 20
  --epochs 2 --seeds 2 --lr 0.05)
# shellcheck disable=SC2054
longer=(study grid --data data --vary norm=batch,renorm,none --batch 20 --epochs 30 --seeds 2)

reports=(report.md summary.csv differences.csv trials.jsonl design.txt test_error.gp)
# same_report A B
same_report() {
  local file
  for file in "${reports[@]}"; do cmp "$1/$file" "$2/$file" || return; done
  if [ -e "$1/test_error.svg" ]; then cmp "$1/test_error.svg" "$2/test_error.svg"; fi
}
finished() { [ "$(find "$1/trials" -name result.json 2>/dev/null | wc -l)" -ge "$2" ]; }

works "a grid at np=1" 1 "${grid[@]}" --out one
told=$(grep -c 'of\|done' stderr.txt)
check "a line for each trial" test "$told" = 13
check "every trial has a result" finished one 12
check "weights are gone" test -z "$(find one -name '*.safetensors')"
check "rows for all methods and values" \
  test "$(grep -c ',test_error,2,' one/summary.csv)" = 6
check "a trial a line" test "$(grep -c '"kind":"trial"' one/trials.jsonl)" = 12

for np in 2 3; do
  works "the same at np=$np" $np "${grid[@]}" --out "np$np"
  check "each trial was run once at np=$np" test "$(grep -c ' done ' stderr.txt)" = 12
  check "the same report at np=$np" same_report one "np$np"
done
works "trials of two processes each" 3 "${grid[@]}" --trial-processes 2 --out teams
check "the same report by teams" same_report one teams

# a trial is the run that the report says it is
key='norm=batch,norm-batch=4,seed=2'
must 1 train --data data --batch 20 --epochs 2 --lr 0.05 --norm batch --norm-batch 4 \
  --seed 2 --progress none --out alone
check "a trial is a run of train" \
  diff <(timeless alone) <(timeless "one/trials/$key")

# killed hard in the middle, and again elsewhere; claims of the dead do not matter
start 2 "${longer[@]}" --out killed
wait_for $((60 * slowness)) finished killed 2
kill -KILL "$(cat pid.1)" "$(cat pid.0)"
end_of_job
check "killed before its end" absent killed/report.md
works "a killed study goes on at np=3" 3 "${longer[@]}" --out killed
works "undisturbed" 2 "${longer[@]}" --out undisturbed
check "a killed study ends as an undisturbed one" same_report undisturbed killed

# one killed while it replaced a file, any of them
unfinished=$(find killed/trials -name result.json | head -n 1)
rm "$unfinished"
for file in killed/*.* "$unfinished"; do : >"$file.tmp-4194305"; done
works "goes on beside what it was writing" 2 "${longer[@]}" --out killed
check "temporaries of dead processes are removed" \
  test -z "$(find killed -name '*.tmp-*')" -a -s "$unfinished"
check "the same report" same_report undisturbed killed

start 2 "${longer[@]}" --out stopped
wait_for $((60 * slowness)) finished stopped 2
kill -USR1 "$job"
end_of_job
# MPICH's launcher loses the code now and then when it has passed a signal on
check "a stopped study: exit code 75" ended_by 75 0
check "a stopped study: a line says how to go on" grep -q 'stopped on request in trial .*the same command goes on' job.txt
# a mark in what an unfinished trial wrote is still there in the end, if that went on
mark() {
  local metrics
  for metrics in stopped/trials/*/metrics.jsonl; do
    [ -e "${metrics%/*}/checkpoint.safetensors" ] || continue
    sed -i '1s/}$/,"mark":1}/' "$metrics" && marked+=("$metrics")
  done
  [ ${#marked[@]} -gt 0 ]
}
marked=()
check "trials that were at work have checkpoints" mark
works "a stopped study goes on" 1 "${longer[@]}" --out stopped
check "it went on within these trials" grep -q '"mark":1' "${marked[@]}"
check "a stopped study ends as an undisturbed one" same_report undisturbed stopped

# two jobs in one folder; a process of a team that stands still
# shellcheck disable=SC2054 # likewise
endless=(study grid --data data --vary norm=batch,none --batch 20 --epochs 1000000)
begun() { [ "$(find shared/trials -name checkpoint.safetensors 2>/dev/null | wc -l)" = 2 ]; }
start 4 "${endless[@]}" --trial-processes 2 --stall-limit 2 --out shared
wait_for $((60 * slowness)) begun
refused "a second job in the folder" 74 \
  "shared is in use by another run: process $(cat pid.0) on host $(uname -n), since " \
  1 "${endless[@]}" --out shared
kill -STOP "$(cat pid.3)"
end_of_job
check "a process of a team stopped: exit code 86" ended_by 86 9
check "in one line, with who" grep -q \
  'syncbn: no progress in .* for process 1.*(processes 0-1 are 2-3 of the job); ' job.txt
run 3 "${endless[@]}" --max-time 0.1 --out shared
check "the folder is free again" test "$code" = 75 -a ! -e shared/run.lock

# a rate at which nothing stays finite is a result, not a failure
works "a diverging trial" 2 study grid --data data --vary lr=0.05,1e30 --batch 20 --epochs 1 \
  --seeds 2 --norm none --out diverging
check "it counts with the error of guessing" \
  grep -q '"lr=1e30.*"status":"diverged".*"test_error":0.9' diverging/trials.jsonl
check "the report says so" grep -q '2 of 4 trials diverged' diverging/report.md

# evaluations of changed images that were not finite, as test_study has them
shift=(study shift --quick --data data --batch 20 --norm-batch 20 --epochs 1 --seeds 2 --out shift)
works "changed images" 2 "${shift[@]}"
no_word() { ! grep -q 'did not stay finite' shift/report.md; }
check "all finite: no word" no_word
for file in shift/trials/*/result.json; do
  sed -i 's/"test_error"/"evaluations_not_finite": 1.0, &/' "$file"
done
works "the report again" 2 "${shift[@]}"
check "it tells of them" grep -q 'In 6 evaluations of changed images a number did not' shift/report.md

if command -v gnuplot >/dev/null; then
  check "pictures" test -s one/test_error.svg -a -s one/test_error.png
  check "a picture in the report's text" grep -q '  norm-batch$' one/report.md
  mkdir bin
  for tool in sh env; do ln -s "$(command -v $tool)" bin/; done
  mpi -np 1 env PATH="$work/bin" "$program" "${grid[@]}" --out plain
  check "without gnuplot: exit code 0" test "$code" = 0
  check "without gnuplot: a word on it" grep -q 'gnuplot was not found' plain/report.md
  check "without gnuplot: the same numbers" cmp one/summary.csv plain/summary.csv
  check "without gnuplot: no pictures" absent plain/test_error.svg
  works "with gnuplot again" 1 "${grid[@]}" --out plain
  check "the same command adds the pictures" same_report one plain
else
  skip "pictures: no gnuplot"
fi

# the check of shapes: on what is kept with the examples, on made summaries, and on wrong ones
shapes=$tests/../examples/studies/check.sh
check "the kept studies have the shapes that the literature tells" "$shapes"
mkdir norm-batch
cat >norm-batch/summary.csv <<'END'
method,x,metric,n,mean,sd,low,high
"batch norm",2,test_error,5,0.4,0.01,0.39,0.41
"batch norm",4,test_error,5,0.16,0.01,0.15,0.17
"batch norm",32,test_error,5,0.13,0.01,0.12,0.14
"renorm",2,test_error,5,0.3,0.01,0.29,0.31
"group norm",,test_error,5,0.14,0.01,0.13,0.15
END
cat >norm-batch/differences.csv <<'END'
method,x,metric,n,mean,sd,low,high
"renorm",2,test_error,5,-0.1,0.01,-0.11,-0.09
"group norm",2,test_error,5,-0.26,0.01,-0.27,-0.25
END
check "the shapes of a made study" "$shapes" norm-batch
fails() { ! "$@" >differences.txt; }
sed -i 's/"renorm",2,test_error,5,0.3,/"renorm",2,test_error,5,0.1,/' norm-batch/summary.csv
check "renorm better than group norm is no such shape" fails "$shapes" norm-batch
sed -i '/"group norm"/d' norm-batch/summary.csv
check "a row that is missing is told" fails "$shapes" norm-batch

works "help" 1 study --help
check "help lists the studies" grep -q '  norm-batch  *[A-Z]' stdout.txt
check "help lists the options of training" grep -q -- '--norm-momentum' stdout.txt
refused "no study" 64 'expected the name of a study' 2 study
refused "no such study" 64 'no study "bogus"' 2 study bogus
refused "no such option" 64 'bogus' 2 study grid --bogus
refused "no such option to vary" 64 'no option --bogus' 2 study grid --vary bogus=1,2 --out r
refused "no such value" 64 'lr' 2 study grid --vary lr=fast --data data --out r
refused "a setting that is refused" 64 'norm batch 1 to batch' 2 study grid \
  --vary norm-batch=30 --batch 20 --data data --out r
refused "nothing varies" 64 'vary' 2 study grid --data data --out r
refused "a study's own variable" 64 'norm-batch: the study norm-batch varies it' 2 study \
  norm-batch --norm-batch 4 --data data --out r
refused "--vary elsewhere" 64 'expected study grid' 2 study norm-batch --vary lr=1
refused "no data" 65 'nowhere' 2 study grid --vary lr=1,2 --data nowhere --out r
refused "another study in the folder" 64 'one holds a study of other settings' 2 "${grid[@]}" \
  --epochs 5 --out one
refused "other processes, other options" 78 'lr: expected the same' 1 "${grid[@]}" --out r : \
  -np 1 "$program" "${grid[@]}" --lr 0.1 --out r
: >file
refused "no folder" 74 'file' 2 "${grid[@]}" --out file/x
finish

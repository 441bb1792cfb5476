#!/usr/bin/env bash
# What a run may do without: other processes, a launcher, a terminal, somebody who reads
# what it prints, a clock that only goes forward.
# shellcheck disable=SC2317 # functions are called by name
set -u
clock_back=$(realpath "$5")
. "$(dirname "$0")/program_lib.sh"

mkdir data
"$make_idx" data 150 40 || exit 1
train=(train --data data --batch 60 --epochs 4)
must 3 "${train[@]}" --progress none --out whole

says() { sed 's/, [0-9.]* s$//' "$1"; }
must 3 eval whole --data data && cp stdout.txt together.txt
"$program" eval whole --data data >alone.txt 2>errors.txt
check 'evaluation by one process, without a launcher' test $? = 0 -a ! -s errors.txt
check 'says the same' diff <(says together.txt) <(says alone.txt)

# nobody reads on
"$program" "${train[@]}" --progress lines --out unread 2>errors.txt | true
check 'nobody reads the output: an error of writing' test "${PIPESTATUS[0]}" = 74
check 'one line says so' test "$(grep -c '^syncbn: cannot write to standard output' errors.txt)" = 1
check 'and the run is done' same_run whole unread
"$program" "${train[@]}" --progress lines --out deaf 2> >(true) >/dev/null
check 'nobody reads the errors: done' same_run whole deaf

# no terminal: a session without one, and no word of its kind or width
for style in auto tty; do
  env -u TERM -u COLUMNS setsid "$program" "${train[@]}" --progress $style --out "no-$style" \
    </dev/null >output.txt 2>errors.txt
  check "no terminal, progress $style: done" test $? = 0
  check "no terminal, progress $style: the same run" same_run whole "no-$style"
done

if [ "$slowness" != 1 ]; then
  skip 'clock: sanitizers want to be loaded first'
  finish
fi
if [ ${#quiet[@]} = 0 ]; then
  skip 'clock: UCX under MPICH measures its own by it when it is loaded, for ever if it goes back'
  finish
fi
check 'the clock goes back for a program' \
  test "$(LD_PRELOAD=$clock_back date +%s)" -lt $(($(date +%s) - 3000))
mpi -np 2 env LD_PRELOAD="$clock_back" "$program" "${train[@]}" --progress tty --out back
check 'the clock goes back: done' test "$code" = 0
check 'the same run' same_run whole back
check 'the seconds are those that passed' awk -v s="$(field seconds back/metrics.jsonl)" \
  'BEGIN { exit !(s > 0 && s < 600) }'
check 'the time left is no nonsense' lacks '-[0-9]* \(h\|min\|s\) left' stderr.txt
mpi -np 2 env LD_PRELOAD="$clock_back" "$program" "${train[@]}" --progress none --out limited \
  --max-time 100
check 'a limit of time is not met early' test "$code" = 0
finish

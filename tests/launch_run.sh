#!/usr/bin/env bash
# launch/run and launch/local: the command for each place, exit codes, signals, restarts,
# and what is said, with programs and launchers that need no build and no cluster.
# shellcheck disable=SC2317 # functions are called by name
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
local=$top/launch/local run=$top/launch/run
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
passed=0 failed=0
for name in $(compgen -e); do
  case $name in SLURM_* | PBS_* | OMP_* | OMPI_* | SBN_*) unset "$name" ;; esac
done

# judge TEXT COMMAND...: it succeeds
judge() {
  local text=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
    printf 'ok      %s\n' "$text"
  else
    failed=$((failed + 1))
    printf 'FAILED  %s\n' "$text"
    tail -v out.txt err.txt
  fi
}
ended() { [ "$code" = "$1" ] && [ "$(wc -l <err.txt)" = "$2" ]; }
# expect TEXT CODE LINES COMMAND...: exit code, and lines on standard error
expect() {
  local text=$1 want=$2 lines=$3
  shift 3
  code=0
  timeout -k 5 60 "$@" >out.txt 2>err.txt </dev/null || code=$?
  judge "$text: exit $code" ended "$want" "$lines"
}
prints() { grep -q -e "$1" out.txt; }
omits() { ! prints "$1"; }
says() { grep -q -e "$1" err.txt; }

# --- this machine -------------------------------------------------------------
expect 'a program that ends well' 0 0 "$local" -np 3 true
expect 'its output, from every process' 0 0 "$local" -np 3 echo here
judge 'three times' test "$(grep -c here out.txt)" = 3
expect 'the exit code of all processes, without a banner' 65 0 "$local" -np 2 sh -c 'exit 65'
# shellcheck disable=SC2016 # for the inner shell
expect 'a killed process, in one line' 137 1 "$local" -np 2 sh -c 'kill -9 $$'
judge 'with a hint' says 'SIGKILL (out of memory'
expect 'no program' 64 1 "$local" -np 2
expect 'a bad number of processes' 64 1 "$local" -np two true
expect 'no number of restarts' 64 1 "$run" --max-restarts -1 true
expect 'an unknown option' 64 1 "$local" --no-such-option true
judge 'named by the script' says '^launch/local: '
expect 'a program that is not there' 127 1 "$local" -np 1 no-such-program-anywhere
expect 'dry run' 0 0 "$local" --dry-run -np 4 syncbn train
judge 'what one machine needs' prints 'OMPI_MCA_pml=ob1 .*mpirun.* -np 4 .*syncbn train$'
OMPI_MCA_pml=^cm expect 'settings of the user' 0 0 "$local" --dry-run -np 4 syncbn train
judge 'they stay' prints 'OMPI_MCA_pml=.*^cm '
expect 'threads' 0 0 "$run" --dry-run -np 2 --threads 3 syncbn train
judge 'as asked' prints 'OMP_NUM_THREADS=3 '

# --- hosts ----------------------------------------------------------------------
printf '# hosts\nh1 slots=2\nh2:2 # two\n\nh3\nh1\n' >hosts
expect 'a host file' 0 0 "$run" --dry-run --hostfile hosts syncbn train
judge 'all slots, a host named twice adding up' prints '--hostfile hosts .*-x OPENBLAS_NUM'
judge 'six of them' prints 'mpirun --quiet -np 6 '
judge 'no transport is forced' omits 'OMPI_MCA_pml'
judge 'nor more processes than slots' omits 'oversubscribe'
judge 'nor threads, which are the share of each host' omits 'OMP_NUM_THREADS'
expect 'more processes than slots' 64 1 "$run" --dry-run --hostfile hosts -np 7 syncbn train
expect 'allowed' 0 0 "$run" --dry-run --oversubscribe --hostfile hosts -np 7 syncbn train
judge 'and said to mpirun' prints 'OMPI_MCA_rmaps_base_oversubscribe=1 .* -np 7'
judge 'a daemon with a guard' prints 'OMPI_MCA_orte_launch_agent=[^ ]*/launch/daemon '
mkdir 'a tree' && cp -r "${run%/*}" 'a tree/launch'
expect 'a tree whose name has a blank' 0 0 'a tree/launch/run' --dry-run --hostfile hosts true
judge "has Open MPI's own, whose name it would cut" omits 'orte_launch_agent'
OMP_NUM_THREADS=2 SBN_ISA=avx2 expect 'variables' 0 0 "$run" --dry-run --hostfile hosts \
  --interface 10.1.0.0/16 syncbn train
judge 'they go along' prints '-x OMP_NUM_THREADS .*-x SBN_ISA'
judge 'one network' prints 'btl_tcp_if_include=10.1.0.0/16 OMPI_MCA_oob_tcp_if_include=10'
expect 'no such host file' 64 1 "$run" --dry-run --hostfile nowhere syncbn train
printf 'h1 slots=many\n' >bad
expect 'a bad host file' 64 1 "$run" --dry-run --hostfile bad syncbn train
printf 'n1\nn1\nn2\nn2\n' >nodes
PBS_NODEFILE=nodes expect 'PBS' 0 0 "$run" --dry-run syncbn train
judge 'by its node file' prints -- '-np 4 --hostfile nodes '
PBS_NODEFILE=nodes expect 'launch/local in PBS' 0 0 "$local" --dry-run -np 2 syncbn train
judge 'stays here' omits 'hostfile'

cat >hydra <<'END'
#!/bin/sh
echo 'HYDRA build details:'
END
chmod +x hydra
expect 'MPICH' 0 0 "$run" --dry-run --mpirun ./hydra --hostfile hosts -np 3 syncbn train
judge 'in its own words' prints './hydra -np 3 -hosts h1:3.*,h2:2.*,h3:1 '

# --- Slurm ----------------------------------------------------------------------
mkdir bin no-pmix
cat >bin/srun <<'END'
#!/bin/sh
case $1 in --mpi=list) echo 'MPI plugin types are: none pmix' ;; esac
END
sed 's/pmix/pmi2/' bin/srun >no-pmix/srun
cat >bin/scontrol <<'END'
#!/bin/sh
[ "$1" = requeue ] && echo "requeue $2"
END
chmod +x bin/* no-pmix/*
# as sbatch sets them for five nodes
slurm=(env "PATH=$work/bin:$PATH" SLURM_JOB_ID=7 'SLURM_JOB_NODELIST=n[08-11],m1'
  SLURM_NTASKS=9 'SLURM_TASKS_PER_NODE=2(x4),1')
expect 'an allocation' 0 0 "${slurm[@]}" "$run" --dry-run syncbn train
judge 'by srun' prints 'srun --mpi=pmix .*--nodes=5 --ntasks=9 .*syncbn train$'
judge 'without flags for mpirun' omits 'RUN_AS_ROOT'
expect 'some of its tasks' 0 0 "${slurm[@]}" "$run" --dry-run -np 2 syncbn train
judge 'on no more nodes' prints '--nodes=2 --ntasks=2 '
expect 'threads of a task' 0 0 "${slurm[@]}" SLURM_CPUS_PER_TASK=4 "$run" --dry-run syncbn train
judge 'as allocated' prints 'OMP_NUM_THREADS=4 .*--cpus-per-task=4'
expect 'srun without pmix' 0 0 "${slurm[@]}" "PATH=$work/no-pmix:$PATH" "$run" --dry-run syncbn train
judge 'mpirun then' prints 'mpirun --quiet -np 9 '
expect 'a job that was put back' 0 0 "${slurm[@]}" SLURM_RESTART_COUNT=1 "$run" --dry-run syncbn train
judge 'goes on' prints 'train --resume$'
expect 'launch/local in Slurm' 0 0 "${slurm[@]}" "$local" --dry-run -np 2 syncbn train
judge 'stays there' prints 'mpirun'
expect 'srun without Slurm' 64 1 "$run" --launcher srun --dry-run syncbn train
hosts_of() { bash -c "set -u; . '$top/launch/lib.sh'; . '$top/launch/places.sh'
  expand_hosts '$1' | xargs; expand_counts '$2' | xargs" | paste -sd:; }
judge 'names of nodes' test "$(hosts_of 'n[08-11,13],m1,a[1-2]' '2(x3),1')" = \
  'n08 n09 n10 n11 n13 m1 a1 a2:2 2 2 1'

# --- restarts -------------------------------------------------------------------
# a launcher that writes down how it was called and ends with the next code of codes.txt
cat >mpirun <<'END'
#!/bin/sh
[ "$1" = --version ] && echo 'mpirun (Open MPI)' && exit
echo "$@" >>calls.txt
echo "$SBN_RUN_ID $SBN_LOCK_WAIT" >>names.txt
code=$(head -n 1 codes.txt)
sed -i 1d codes.txt
exit "${code:-0}"
END
# a remote shell that knows no host h2
cat >shell <<'END'
#!/bin/sh
[ "$1" != h2 ]
END
printf '#!/bin/sh\n' >syncbn
chmod +x mpirun shell syncbn
export OMPI_MCA_plm_rsh_agent=$work/shell
# tries TEXT CODE CALLS CODES ARGUMENT...
tries() {
  local text=$1 want=$2 calls=$3 codes=$4
  shift 4
  : >calls.txt
  : >names.txt
  tr ' ' '\n' <<<"$codes" >codes.txt
  code=0
  timeout -k 5 60 "$run" --mpirun ./mpirun "$@" >out.txt 2>err.txt </dev/null || code=$?
  judge "$text: exit code $want" test "$code" = "$want"
  judge "$text: $calls starts" test "$(wc -l <calls.txt)" = "$calls"
}
tries 'killed, then done' 0 2 '137 0' -np 2 --max-restarts 2 ./syncbn train --out x
judge 'it goes on' test "$(grep -c -e 'train --out x --resume$' calls.txt)" = 1
judge 'both starts have one name' test "$(sort -u names.txt | grep -c '^.*-[0-9]*-[0-9]* *$')" = 1
judge 'said' says 'restart 1 of 2'
tries 'no restart unasked' 137 1 '137 0' -np 2 ./syncbn train
tries 'stood still' 86 3 '86 86 86 0' -np 2 --max-restarts 2 ./syncbn train --resume
judge 'what that is' says 'no progress'
judge 'once is enough' test "$(grep -c -e 'train --resume$' calls.txt)" = 3
judge 'who resumes anyway needs no name' test "$(sort -u names.txt)" = ' '
for end in 64 65 74 75 77 78; do
  tries "ended for good" $end 1 "$end 0" -np 2 --max-restarts 2 ./syncbn train
  judge 'in words' says "exit code $end, [a-z]"
done
tries 'a host is lost' 0 2 '9 0' --hostfile hosts --max-restarts 1 ./syncbn train
judge 'it is named' says 'lost: h2'
judge 'its locks are waited for' test "$(cut -d' ' -f2 names.txt | xargs)" = 120
judge 'on every host' grep -q -e '-x SBN_LOCK_WAIT' calls.txt
judge 'the others go on' grep -q -e '-np 4 --hostfile hosts --host h1:3,h3:1 .*--resume$' calls.txt
tries 'fewer than asked for need fewer' 0 2 '9 0' -np 3 --hostfile hosts --max-restarts 1 ./syncbn train
judge 'as many as asked' grep -q -e '-np 3 .*--host h1' calls.txt
# a signal while hosts are asked
mv shell shell.quiet
cat >shell <<'END'
#!/bin/sh
kill -s USR1 "$(cat run.pid)"
sleep 0.3
[ "$1" != h2 ]
END
chmod +x shell
: >calls.txt
printf '9\n0\n' >codes.txt
code=0
# shellcheck disable=SC2016 # for the inner shell
timeout -k 5 60 sh -c 'echo $$ >run.pid && exec "$@"' sh "$run" --mpirun ./mpirun --hostfile hosts \
  --max-restarts 1 ./syncbn train >out.txt 2>err.txt </dev/null || code=$?
judge 'USR1 between two starts: no other' test "$code $(wc -l <calls.txt)" = '75 1'
judge 'and no host lost that lives' says 'lost: h2$'
mv shell.quiet shell
printf 'h2 slots=2\n' >lost
tries 'no host is left' 9 1 '9 0' --hostfile lost --max-restarts 5 ./syncbn train
tries 'another program' 0 2 '139 0' -np 1 --max-restarts 1 true
judge 'has no option --resume' test "$(grep -c resume calls.txt)" = 0
unset OMPI_MCA_plm_rsh_agent
cat >./mpirun <<'END'
#!/bin/sh
exit 75
END
expect 'put back into the queue' 75 1 "${slurm[@]}" "$run" --launcher mpirun --mpirun ./mpirun \
  --requeue ./syncbn train
judge 'by its number' prints '^requeue 7$'

# --- signals --------------------------------------------------------------------
cat >syncbn <<'END'
#!/bin/sh
trap 'echo USR1 >>got.txt; exit 75' USR1
trap 'echo TERM >>got.txt; exit 143' TERM
: >up
i=0
while [ $i -lt 300 ]; do sleep 0.1; i=$((i + 1)); done
END
# signalled SIGNAL ARGUMENT...: what the program got, and the exit code
signalled() {
  local signal=$1 launcher i
  shift
  rm -f up got.txt
  "$@" >out.txt 2>err.txt </dev/null &
  launcher=$!
  for ((i = 0; i < 200; i++)); do [ -e up ] || sleep 0.1; done
  kill -s "$signal" $launcher
  code=0
  wait $launcher 2>/dev/null || code=$?
}
signalled USR1 "$local" -np 1 ./syncbn train
judge 'USR1 goes to the program' test "$code $(cat got.txt)" = '75 USR1'
signalled TERM "$local" -np 1 ./syncbn train
judge 'TERM asks to save' test "$code $(cat got.txt)" = '75 USR1'
signalled TERM "$run" --max-restarts 3 -np 1 ./syncbn bench
judge 'TERM ends what does not save, and no restart' test "$(cat got.txt)" = TERM
# one that came before the program listens
printf '#!/bin/sh\n: >up\nexec sleep 30\n' >syncbn
signalled USR1 "$run" --max-restarts 3 -np 1 ./syncbn train
judge 'USR1 to a program that does not listen yet: stopped on request' test "$code" = 75

# one that comes while a run is ending for another reason, and would be started again
cat >dying <<'END'
#!/bin/sh
[ "$1" = --version ] && echo 'mpirun (Open MPI)' && exit
trap 'exit 137' USR1
: >up
i=0
while [ $i -lt 300 ]; do sleep 0.1; i=$((i + 1)); done
END
chmod +x dying
for restarts in 0 1; do
  want=137 lines=0
  if [ $restarts = 1 ]; then want=75 lines=1; fi
  signalled USR1 "$run" --max-restarts $restarts --mpirun ./dying -np 1 ./syncbn train
  judge "USR1 while a run is killed, $restarts restarts left: $code" ended $want $lines
done

# several: a launcher that gets what mpirun would get, and takes two seconds to save
cat >saver <<'END'
#!/bin/sh
[ "$1" = --version ] && echo 'mpirun (Open MPI)' && exit
echo start >>got.txt
asked=
trap 'trap - USR1; echo USR1 >>got.txt; asked=yes' USR1
trap 'echo TERM >>got.txt; exit 143' TERM
: >up
until [ -n "$asked" ]; do sleep 0.1; done
i=0
while [ $i -lt 20 ]; do sleep 0.1; i=$((i + 1)); done
echo saved >>got.txt
exit 75
END
chmod +x saver
heard_lines() { wc -l <got.txt; }
# the program by the saver; each signal of `more` follows when the one before it has come, or
# after half a second, in which it should not
several() {
  local more=$1 launcher i k lines
  shift
  rm -f up got.txt
  "$run" --max-restarts 3 --mpirun ./saver -np 1 "$@" >out.txt 2>err.txt </dev/null &
  launcher=$!
  for ((i = 0; i < 200; i++)); do [ -e up ] || sleep 0.1; done
  for i in $more; do
    lines=$(heard_lines)
    kill -s "$i" $launcher
    for ((k = 0; k < 10; k++)); do [ "$(heard_lines)" = "$lines" ] && sleep 0.05; done
  done
  code=0
  wait $launcher 2>/dev/null || code=$?
  got="$code $(xargs <got.txt)"
}
# heard SIGNALS GOT: of training
heard() {
  several "$1" ./syncbn train
  judge "$1: exit code, and what is passed on: $got" test "$got" = "$2"
}
heard 'USR1 TERM' '75 start USR1 saved'
heard 'TERM USR1' '75 start USR1 saved'
heard 'USR1 USR1' '138 start USR1'
heard 'TERM TERM' '143 start USR1 TERM'
heard 'USR1 TERM TERM' '143 start USR1 TERM'
heard 'TERM USR1 USR1' '138 start USR1'
several 'TERM' ./syncbn bench
judge "TERM to what does not save: $got" test "$got" = '143 start TERM'

# between the start of a run and that of its processes
mkdir -p early
cat >early/mktemp <<'END'
#!/bin/sh
kill -s USR1 "$(cat run.pid)"
exec /usr/bin/mktemp "$@"
END
chmod +x early/mktemp
echo 'h1 slots=1' >one-host
code=0
# shellcheck disable=SC2016 # for the inner shell
timeout -k 5 30 sh -c 'echo $$ >run.pid && exec "$@"' sh env PATH="$PWD/early:$PATH" \
  "$run" --mpirun ./saver --hostfile one-host -np 1 ./syncbn train >out.txt 2>err.txt </dev/null ||
  code=$?
judge "USR1 just before processes start is not lost: $code" test "$code" = 75

# right behind the fork, where our own child would drop what is trapped here
lost=0
for ((i = 0; i < 10 && lost == 0; i++)); do
  # shellcheck disable=SC2016 # for the inner shell
  bash -c '. "$1"; env sleep 1 <&0 & child=$!; tell USR1; wait "$child"' sh "$top/launch/signals.sh" \
    2>/dev/null </dev/null
  [ $? = 138 ] || lost=1
done
judge 'nor right behind the fork' test $lost = 0

# a step of which srun could not start all, and which it calls a success after a while
cat >bin/srun <<'END'
#!/bin/sh
case $1 in
  --mpi=list) echo 'MPI plugin types are: none pmix' && exit ;;
  --mpi=none) exit ;;
esac
echo start >>got.txt
[ "$(wc -l <got.txt)" = 1 ] || exit 0
echo 'srun: error: task 1 launch failed: Unspecified error' >&2
sleep 0.5
END
printf '#!/bin/sh\necho idle\n' >bin/sinfo
chmod +x bin/sinfo
rm -f got.txt
expect 'srun could not start all' 0 3 "${slurm[@]}" "$run" --max-restarts 1 ./syncbn study
judge 'that is told' says 'exit code 1, of the launcher: .*could not start'
judge 'and started again' test "$(wc -l <got.txt)" = 2
rm -f got.txt
expect 'and without restarts is a failure' 1 2 "${slurm[@]}" "$run" ./syncbn study

# before anything has begun: while hosts are looked for, and in a build
cat >bin/srun <<'END'
#!/bin/sh
if [ "$1" = --mpi=list ]; then
  kill -s USR1 "$(cat run.pid)"
  echo 'MPI plugin types are: none pmix'
else
  echo start >>got.txt
fi
END
rm -f got.txt
# shellcheck disable=SC2016 # for the inner shell
expect 'USR1 before the start' 75 1 "${slurm[@]}" sh -c 'echo $$ >run.pid && exec "$@"' sh \
  "$run" --requeue ./syncbn study
judge 'says that nothing had begun' says 'stopped on request before anything had begun'
judge 'nor does anything' test ! -e got.txt
judge 'and the job is put back' prints '^requeue 7$'
mkdir -p tree/build tools tmp
cp -r "$top/launch" tree/
cp syncbn tree/build/
printf '#!/bin/sh\necho $$ >up\nsleep 30\n' >tools/meson
chmod +x tools/meson
ended_build() { ! grep -qs '^State:.[^Z]' "/proc/$(cat up)/status"; }
# in_build SIGNAL ARGUMENT...: signalled while the program is built
in_build() {
  local i
  signalled "$1" env --default-signal=INT "PATH=$work/tools:$PATH" "TMPDIR=$work/tmp" \
    tree/launch/run --here --mpirun ./saver -np 1 syncbn "${@:2}"
  judge "$1 in a build of syncbn $2: exit code $code" test "$code" = "$want"
  judge 'nothing is started' test ! -e got.txt
  for ((i = 0; i < 20; i++)); do ended_build || sleep 0.1; done
  judge 'the build has ended' ended_build
  judge 'and leaves no file' test -z "$(ls tmp)"
}
for signal in USR1 TERM; do
  want=75 in_build $signal train
  judge 'says that nothing had begun' says 'stopped on request before anything had begun'
  judge 'in one line' test "$(wc -l <err.txt)" = 1
done
want=143 in_build TERM bench
want=138 in_build USR1 bench
want=130 in_build INT train

# As in an image whose user did not build the program.
printf '#!/bin/sh\nexit 0\n' >runs
chmod +x runs
rm up
chmod a-w tree/build
as_user=()
# to root nothing is closed, unless it does without
if [ "$(id -u)" = 0 ]; then as_user=(setpriv --bounding-set=-dac_override); fi
expect 'a tree where this user may not build' 0 0 "${as_user[@]}" env "PATH=$work/tools:$PATH" \
  "TMPDIR=$work/tmp" tree/launch/local --mpirun ./runs -np 1 syncbn train
judge 'nothing is built' test ! -e up
chmod u+w tree/build
printf '%d passed, %d failed\n' "$passed" "$failed"
exit $((failed > 0))

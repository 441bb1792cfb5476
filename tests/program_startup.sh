#!/usr/bin/env bash
# Processes that do not belong together, or that a launcher of another MPI started, end at
# once and say which differ in what.
set -u
other=$(realpath "$5")
. "$(dirname "$0")/program_lib.sh"

mkdir data data2
"$make_idx" data 150 40 || exit 1
"$make_idx" data2 151 40 || exit 1
train=(train --data data --progress none --batch 60 --steps 3 --out out)

# apart TEXT PATTERN ARGUMENT...: mpirun with these ends with 78 and a line that has the
# pattern
apart() {
  local text=$1 pattern=$2 expected=78
  shift 2
  limit_s=$refusal_s mpi "$@"
  judge_refusal
}

version=$("$program" --version | sed 's/^syncbn //')
apart "another version on one of three" \
  "version: expected the same on all processes, got .* on processes 0, 2, 0.0.8 on process 1; start them alike" \
  -np 1 "$program" "${train[@]}" : -np 1 env SBN_TEST_VERSION=0.0.8 "$other" "${train[@]}" : -np 1 "$program" "${train[@]}"
apart "words of another size and order on two of four" \
  "build: expected the same .*little-endian.* on processes 0, 3, .*pointer 4 bytes, big-endian on processes 1, 2;" \
  -np 1 "$program" "${train[@]}" : \
  -np 2 env SBN_TEST_WORDS='pointer 4 bytes, big-endian' "$other" "${train[@]}" : -np 1 "$program" "${train[@]}"
apart "another command" 'the command: expected the same .* train on process 0, eval on processes 1, 2' \
  -np 1 "$program" "${train[@]}" : -np 2 "$program" eval out
apart "other settings on two processes" \
  '--batch: expected the same on all processes, got 60 on processes 0, 2, 50 on process 1, 40 on process 3' \
  -np 1 "$program" "${train[@]}" : -np 1 "$program" "${train[@]}" --batch 50 : \
  -np 1 "$program" "${train[@]}" : -np 1 "$program" "${train[@]}" --batch 40
printf 'input 1x28x28\nconv c out=4 kernel=5\nnorm n\nlinear d out=10\nlogsoftmax\n' >a.net
mkdir elsewhere
sed 's/out=4/out=5/' a.net >elsewhere/a.net
apart "another net of the same name" "net's text differs between processes: .* on processes 0, 1, .* on process 2" \
  -np 2 "$program" "${train[@]}" --net a.net --data "$PWD/data" : \
  -np 1 -wdir "$PWD/elsewhere" "$program" "${train[@]}" --net a.net --data "$PWD/data"
mkdir one two
cp -r data one/data
cp -r data2 two/data
# (of one size, the processes of a host read it but once)
apart "another data set of the same name" \
  "size of the data set differs between processes: .* on processes 0, 1, .* on process 2"\
  -np 2 -wdir "$PWD/one" "$program" "${train[@]}" : -np 1 -wdir "$PWD/two" "$program" "${train[@]}"

# One process, as each of several is that do not find each other.
for of in PMI_SIZE=3,PMI_RANK=0 SLURM_STEP_NUM_TASKS=4,SLURM_PROCID=0; do
  code=0
  env "${of%,*}" "${of#*,}" "$program" "${train[@]}" >stdout.txt 2>stderr.txt || code=$?
  # shellcheck disable=SC2034 # for judge_refusal
  expected=78 pattern="as one of [34] processes by .*(${of%,*}), but .* sees it alone" text="lonely: $of"
  judge_refusal
  env "${of%,*}" "${of#*,}" "$mpirun" "${quiet[@]}" -np 1 "$program" --version >stdout.txt 2>&1
  check "one process of mpirun's own within: $of" has "^syncbn $version" stdout.txt
done
if [ ${#quiet[@]} -gt 0 ]; then
  # Of MPICH's own variables nobody is to start Open MPI, which at times fails when several do.
  cannot_start=(OMPI_MCA_orte_tmpdir_base=/proc/nowhere PMI_SIZE=3 MPI_LOCALNRANKS=3)
  if env "${cannot_start[0]}" "$program" --version >stdout.txt 2>&1; then
    skip "this Open MPI starts without its folder, so the next check shows less"
  fi
  code=0
  env "${cannot_start[@]}" PMI_RANK=0 "$program" "${train[@]}" >stdout.txt 2>stderr.txt || code=$?
  # shellcheck disable=SC2034 # for judge_refusal
  expected=78 pattern="as one of 3 processes by an mpiexec of MPICH's kind" text="before MPI starts"
  judge_refusal
  env "${cannot_start[@]/*tmpdir*/PMI_RANK=0}" "$mpirun" "${quiet[@]}" -np 1 "$program" --version >stdout.txt 2>&1
  check "one process of mpirun's own within all of MPICH's" has "^syncbn $version" stdout.txt
fi
code=0
env PMI_SIZE=3 PMI_RANK=2 "$program" "${train[@]}" >stdout.txt 2>stderr.txt || code=$?
check "the others are silent, with the same code" test "$code" = 78 -a ! -s stderr.txt
for of in PMI_SIZE=1,PMI_RANK=0 SLURM_STEP_NUM_TASKS=1,SLURM_PROCID=0 SLURM_NTASKS=4,SLURM_PROCID=0; do
  check "no launcher's business: $of" env "${of%,*}" "${of#*,}" "$program" --version
done >/dev/null
# The launcher of the other MPI, where it is installed too.
if [ ${#quiet[@]} -gt 0 ]; then others=(mpiexec.mpich mpiexec.hydra); else others=(mpiexec.openmpi); fi
if other_launcher=$(command -v "${others[@]}" | head -n 1) && [ -n "$other_launcher" ]; then
  code=0
  timeout 60 "$other_launcher" -n 3 "$program" "${train[@]}" >stdout.txt 2>stderr.txt || code=$?
  check "really by $other_launcher: exit code 78, got $code" test "$code" = 78
  check "one line" test "$(grep -c '^syncbn: started as one of 3' stderr.txt)" = 1
  if [ "$code" != 78 ]; then show_output; fi
else
  skip "no mpiexec of another MPI on this machine"
fi
finish

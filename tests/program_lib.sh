# shellcheck shell=bash
# What the tests of the program share. Sourced by a script that set -u, with the arguments
# that Meson gives: PROGRAM MPIRUN MAKE_IDX [SLOWNESS].

# shellcheck disable=SC2034 # for the scripts that source this
program=$(realpath "$1") mpirun=$2 make_idx=$(realpath "$3")
# Sanitizers make the program slower; a limit on time grows with them.
slowness=${4:-1}

passed=0 failed=0
job= # a run in the background, to end with the test
# shellcheck disable=SC2034 # likewise
tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d) || exit 1

# Open MPI's files lie where they can be told from those of other jobs.
mkdir "$work/.mpi" && export OMPI_MCA_orte_tmpdir_base=$work/.mpi
shared=/dev/shm/${work##*/}
if mkdir "$shared" 2>/dev/null; then
  export OMPI_MCA_btl_vader_backing_directory=$shared
else
  shared=
fi

clean_up() {
  if [ -n "$job" ]; then kill "$job" && wait "$job"; fi 2>/dev/null
  rm -rf "$work" ${shared:+"$shared"}
}
trap clean_up EXIT
trap 'exit 1' INT TERM
cd "$work" || exit 1

# Open MPI explains every exit code that is not 0, unless told to be quiet.
quiet=()
# It calls itself OpenRTE where it goes by the name mpirun.openmpi.
if "$mpirun" --version 2>/dev/null | grep -q -e 'Open MPI' -e OpenRTE; then quiet=(--quiet); fi

pass() {
  passed=$((passed + 1))
  printf 'ok      %s\n' "$*"
}
fail() {
  failed=$((failed + 1))
  printf 'FAILED  %s\n' "$*"
}
skip() { printf 'skipped %s\n' "$*"; }
# Processes that were started here, and run.
ours() {
  local process
  for process in /proc/[0-9]*; do
    case $(readlink "$process/cwd" 2>/dev/null) in "$work" | "$work"/*) ;; *) continue ;; esac
    [ "${process#/proc/}" = $$ ] || [ "${process#/proc/}" = "$BASHPID" ] ||
      grep -q '^State:.[ZX]' "$process/status" 2>/dev/null ||
      tr '\0' ' ' 2>/dev/null <"$process/cmdline"
  done
}
nobody_left() { [ -z "$(exec 2>/dev/null && ours)" ]; }
# What runs leave beside their folders: processes, shared memory, files of MPI.
nothing_left() {
  local files
  wait_for 10 nobody_left || fail "processes are left: $(ours | head -c 300)"
  files=$(find "$work/.mpi" ${shared:+"$shared"} -type f | head -n 5)
  [ -z "$files" ] || fail "files of MPI are left: $files"
}
finish() {
  nothing_left
  printf '%d passed, %d failed\n' "$passed" "$failed"
  exit $((failed > 0))
}

# check TEXT COMMAND...: it succeeds
check() {
  local text=$1
  shift
  if "$@"; then pass "$text"; else fail "$text"; fi
}
differs() { ! cmp -s "$1" "$2"; }
same() { cmp "$1" "$2"; }
has() { grep -q -e "$1" "$2"; }
lacks() { ! has "$1" "$2"; }
absent() { ! [ -e "$1" ]; }

# mpi ARGUMENT...: mpirun with a limit on its time. Output goes to stdout.txt and
# stderr.txt, the exit code to $code; 124 is a hang.
limit_s=$((120 * slowness))
mpi() {
  code=0
  timeout -k 10 "$limit_s" "$mpirun" "${quiet[@]}" "$@" \
    >stdout.txt 2>stderr.txt </dev/null || code=$?
  # mpirun's event library, of a pipe of its own that closed while it looked
  sed -i '/^\[warn\] Epoll /d' stderr.txt
}

# ended_by CODE OTHER: the job's exit code; or OTHER from MPICH's launcher, which may tell the
# signal by which it ended another process
ended_by() { [ "$code" = "$1" ] || { [ ${#quiet[@]} = 0 ] && [ "$code" = "$2" ]; }; }

# run NP ARGUMENT...: the program by NP processes. After one that failed mpirun lets the others
# end, for two seconds even where there are none; a `:` among the arguments begins some more.
run() {
  local np=$1 grace=()
  shift
  if [ "$np" = 1 ] && [ ${#quiet[@]} != 0 ] && [[ " $* " != *' : '* ]]; then
    grace=(--mca odls_base_sigkill_timeout 0)
  fi
  mpi "${grace[@]}" -np "$np" "$program" "$@"
}

show_output() { sed 's/^/        | /' stdout.txt stderr.txt | head -n 40; }

# works TEXT NP ARGUMENT...: the program ends with 0
works() {
  local text=$1
  shift
  run "$@"
  if [ "$code" = 0 ]; then
    pass "$text"
  else
    fail "$text: expected exit code 0, got $code"
    show_output
    return 1
  fi
}

# must NP ARGUMENT...: as works, without a line when it does
must() {
  run "$@"
  [ "$code" = 0 ] && return
  fail "syncbn ${*:2} at np=$1: expected exit code 0, got $code"
  show_output
  return 1
}

# Lines of metrics that do not depend on time.
timeless() { grep -v '"kind":"done"' "$1/metrics.jsonl"; }
# field NAME FILE: the numbers of that name in a metrics file, one a line
field() { grep -o "\"$1\":[^,}]*" "$2" | cut -d: -f2; }

# other_losses A B: at least one loss differs
other_losses() { differs <(field loss "$1/metrics.jsonl") <(field loss "$2/metrics.jsonl"); }

# same_run A B: two folders hold the same weights, the same losses, the same accuracy
same_run() {
  if ! [ -s "$1/model.safetensors" ] ||
    ! cmp "$1/model.safetensors" "$2/model.safetensors" ||
    ! diff <(timeless "$1") <(timeless "$2") ||
    ! diff <(grep '"done"' "$1/metrics.jsonl" | grep -o '"test_accuracy".*') \
      <(grep '"done"' "$2/metrics.jsonl" | grep -o '"test_accuracy".*'); then
    return 1
  fi
}

other_run() { ! same_run "$1" "$2" >differences.txt 2>&1; }

# refused TEXT CODE PATTERN NP ARGUMENT...: the program ends in good time with that exit
# code and one line on standard error, which has the pattern
refused() {
  local text=$1 expected=$2 pattern=$3
  shift 3
  limit_s=$refusal_s run "$@"
  judge_refusal
}
refusal_s=$((10 * slowness))
judge_refusal() {
  local problem=
  if [ "$code" = 124 ] || [ "$code" = 137 ]; then
    problem="no end within $refusal_s s"
  elif [ "$code" != "$expected" ]; then
    problem="expected exit code $expected, got $code"
  elif [ "$(wc -l <stderr.txt)" != 1 ]; then
    problem="expected one line on standard error, got $(wc -l <stderr.txt)"
  elif ! grep -q '^syncbn: ' stderr.txt || ! grep -q -e "$pattern" stderr.txt; then
    problem="expected a line with '$pattern'"
  elif [ -s stdout.txt ]; then
    problem='expected nothing on standard output'
  fi
  if [ -z "$problem" ]; then
    pass "$text: $(head -c 300 stderr.txt)"
  else
    fail "$text: $problem"
    show_output
  fi
}

# start NP ARGUMENT...: the program in the background, mpirun's pid in $job; the pid
# of process R is in pid.R. Process $start_stopped stands still before the program begins, or
# with $stop_in_mpi to preload in MPI.
start() {
  local np=$1
  shift
  rm -f pid.*
  # shellcheck disable=SC2016 # for the inner shell
  "$mpirun" "${quiet[@]}" -np "$np" sh -c \
    'rank=${OMPI_COMM_WORLD_RANK:-$PMI_RANK} stopped=$1 module=$2 && shift 2
    echo $$ >"pid.$rank"
    if [ "$rank" = "$stopped" ] && [ -z "$module" ]; then kill -STOP $$; fi
    if [ "$rank" = "$stopped" ] && [ -n "$module" ]; then export LD_PRELOAD="$module"; fi
    exec "$@"' sh "${start_stopped-none}" "${stop_in_mpi-}" "$program" "$@" \
    >job.txt 2>&1 </dev/null &
  job=$!
}
# end_of_job: its exit code, in $code
end_of_job() {
  code=0
  wait "$job" || code=$?
  job=
}
# wait_for SECONDS COMMAND...: until it succeeds
wait_for() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.05
  done
}

# put_bytes FILE OFFSET BYTES: overwrite in place; BYTES as printf understands them
put_bytes() {
  # shellcheck disable=SC2059 # the bytes are a format on purpose
  printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
size_of() { wc -c <"$1"; }

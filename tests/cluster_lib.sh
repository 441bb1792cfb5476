# shellcheck shell=bash
# What the cluster tests share: a world of its own for hosts, daemons and networks, made of
# namespaces, of which nothing is left behind however the test ends. Sourced by a script
# that set -u, with the arguments that Meson gives: PROGRAM MPIRUN MAKE_IDX.

# shellcheck disable=SC2034 # for the scripts that source this
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=$(realpath "$1") make_idx=$(realpath "$3")
world_limit_s=${CLUSTER_LIMIT_S:-800}

leave_out() {
  printf 'skipped: %s\n' "$*"
  exit 77
}
# needs COMMAND...
needs() {
  local name
  for name in "$@"; do
    command -v "$name" >/dev/null || leave_out "no $name; launch/test installs it"
  done
}

# Go on in a world of its own: processes, network, file systems. When the outermost process
# ends, or is killed, so is everything that lives there.
enter_world() {
  local spaces=(unshare --net --pid --ipc --uts --mount --fork --kill-child --mount-proc
    --propagation private)
  if [ -n "${CLUSTER_WORLD-}" ]; then
    furnish_world
    return
  fi
  [ "$(id -u)" = 0 ] || leave_out 'only root can make hosts of namespaces'
  needs unshare nsenter mount ip
  "${spaces[@]}" true 2>/dev/null || leave_out 'namespaces cannot be made here'
  "${spaces[@]}" sh -c 'ip link add net0 type bridge' 2>/dev/null ||
    leave_out 'bridges cannot be made here'
  CLUSTER_WORLD=1 exec timeout -k 1 "$world_limit_s" "${spaces[@]}" "$0" "$@"
}

# The tree with its program at /mnt/tree, which all hosts see; file systems in memory; one
# network besides loopback, without which names of hosts do not resolve.
furnish_world() {
  mount -t tmpfs tmpfs /mnt && mount -t tmpfs tmpfs /dev/shm || exit 1
  mkdir -p /mnt/tree/build /mnt/tree/data
  cp -r "$top/launch" /mnt/tree/
  cp "$program" /mnt/tree/build/syncbn
  cp "$make_idx" /mnt/tree/
  mount -t tmpfs tmpfs /tmp && mount -t tmpfs tmpfs /run || exit 1
  ip link set lo up
  ip link add net0 type bridge
  ip addr add 10.77.0.254/24 dev net0
  ip link set net0 up
  hostname login
  make_job_processes
  cat /etc/hosts >/mnt/hosts
  printf '10.77.0.254 login\n' >>/mnt/hosts
  mount --bind /mnt/hosts /etc/hosts
  cd /mnt/tree || exit 1
  ./make_idx data 150 40 || exit 1
  # TMPDIR is a folder that this /tmp does not have.
  for name in $(compgen -e); do
    case $name in SLURM_* | PBS_* | OMPI_* | PMIX_* | SBN_* | TMPDIR) unset "$name" ;; esac
  done
  # Hosts share the cores of this machine.
  export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive OMPI_MCA_mpi_yield_when_idle=1
}

passed=0 failed=0
pass() {
  passed=$((passed + 1))
  printf 'ok      %s (%s s)\n' "$*" "$SECONDS"
}
fail() {
  failed=$((failed + 1))
  printf 'FAILED  %s (%s s)\n' "$*" "$SECONDS"
}
finish() {
  printf '%d passed, %d failed\n' "$passed" "$failed"
  exit $((failed > 0))
}
# check TEXT COMMAND...: it succeeds
check() {
  local text=$1
  shift
  if "$@"; then pass "$text"; else fail "$text"; fi
}
show() { sed 's/^/        | /' "$@" | head -n 40; }

# wait_for SECONDS COMMAND...: until it succeeds
wait_for() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.1
  done
}

# in_time TEXT FILE PATTERN SINCE-US AT-MOST-MS: a line of the file
in_time() {
  local took_ms
  while
    took_ms=$(((${EPOCHREALTIME/./} - $4) / 1000))
    ! grep -qs -e "$3" "$2" && [ $took_ms -le "$5" ]
  do sleep 0.02; done
  check "$1 after $took_ms ms, at most $5" test $took_ms -le "$5"
}
# ends_by_watch TEXT FILE PATTERN SINCE-US AT-MOST-MS: it tells, then the launcher, when its
# processes have ended
ends_by_watch() {
  in_time "$1: the watch tells" "$2" "^syncbn: no progress in [a-z].*$3" "$4" "$5"
  in_time "$1: launch/run tells, 86," "$2" '^launch/run: exit code 86, ' "$4" "$5"
}

# $job_processes prints the processes of jobs that are there, one a line: by their
# environment, also of a script that has not become the program yet, and what starts them.
job_processes=/mnt/job_processes
make_job_processes() {
  cat >$job_processes <<'END'
#!/bin/sh
exec 2>/dev/null
for p in /proc/[0-9]*; do
  command=$(tr '\0' ' ' <"$p/cmdline")
  [ -n "$command" ] || continue # it has ended, and is not waited for
  if grep -qzE '^(OMPI_COMM_WORLD_RANK|SLURM_PROCID)=' "$p/environ" ||
    printf ' %s\n' "$command" | grep -qE '[ /](orted|prted|launch/daemon) '; then
    printf '%s %s\n' "${p#/proc/}" "$command"
  fi
done
END
  chmod +x $job_processes
}

train=(--data data --batch 60 --progress none --checkpoint-every 20)
# reference NAME ARGUMENT...: one process on this machine, in out/NAME
reference() {
  local name=$1
  shift
  launch/run --here -np 1 build/syncbn train "${train[@]}" --out "out/$name" "$@" >/dev/null ||
    fail "reference $name"
}
steps_of() { grep '"kind":"step"' "out/$1/metrics.jsonl"; }
# same REFERENCE NAME: the weights are the same bytes, and so are the losses of all steps
same() {
  cmp "out/$1/model.safetensors" "out/$2/model.safetensors" &&
    diff <(steps_of "$1") <(steps_of "$2")
}
# has_steps NAME N
has_steps() {
  local n
  n=$(grep -c '"kind":"step"' "out/$1/metrics.jsonl" 2>/dev/null)
  [ "${n:-0}" -ge "$2" ]
}

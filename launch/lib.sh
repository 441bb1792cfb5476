# shellcheck shell=bash
# What the launch scripts share: packages, build, environment for Open MPI.
# Sourced by a script that set -u and stands in launch/.

# Without an open input the next file opened would become one, and mpirun waits on it.
if [ ! -e /dev/fd/0 ]; then exec </dev/null; fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
me=launch/$(basename "$0")

# shellcheck disable=SC2034 # for the scripts that source this
build_packages=(gcc meson ninja-build pkg-config libopenmpi-dev openmpi-bin libopenblas-dev
  zlib1g-dev libjansson-dev librandom123-dev libxxhash-dev)
# shellcheck disable=SC2034
test_packages=(libcmocka-dev binutils locales) data_package=dataset-fashion-mnist
# shellcheck disable=SC2034
neon_packages=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)
# shellcheck disable=SC2034
script_packages=(shellcheck python3-yaml e2fsprogs btrfs-progs mpich)
# shellcheck disable=SC2034 # these bring services: see packages_without_services
cluster_packages=(slurmctld slurmd slurm-client munge openssh-server openssh-client iproute2)
# shellcheck disable=SC2034
sim_packages=(libsimgrid-dev)
# shellcheck disable=SC2034
mpich_packages=(mpich libmpich-dev)

say() { printf '%s\n' "$*"; }
note() { printf '%s\n' "$*" >&2; }
warn() { printf '%s: %s\n' "$me" "$*" >&2; }
die() {
  local code=$1
  shift
  warn "$@"
  exit "$code"
}

# wait_through PID: its exit code. A signal that is trapped meanwhile ends wait, not the
# process; and wait knows nothing of one that it has told of before.
wait_through() {
  local state last
  while
    wait "$1" 2>/dev/null
    state=$?
    [ $state -gt 128 ] && kill -0 "$1" 2>/dev/null
  do :; done
  if [ $state -gt 128 ]; then
    # it may have ended just as the signal came
    wait "$1" 2>/dev/null
    last=$?
    [ $last = 127 ] || state=$last
  fi
  return $state
}

# wait_briefly PID MS: what is on its way to the screen comes before what we say.
wait_briefly() {
  local i
  for ((i = 0; i < $2; i += 50)); do
    kill -0 "$1" 2>/dev/null || return
    sleep 0.05
  done
}

# Run quietly; on failure show what it said: ninja's first failure, or else the end.
quietly() {
  local file log code=0
  file=$(mktemp) || return 1
  # without its name, of which nothing is left where we are killed
  exec {log}<>"$file"
  rm -f "$file"
  "$@" >&"$log" 2>&1 {log}>&- </dev/null || code=$?
  if [ "$code" != 0 ]; then
    warn "failed ($code): $*"
    if grep -q '^FAILED: ' "/dev/fd/$log"; then
      sed -n '/^FAILED: /,$p' "/dev/fd/$log" | grep -v '^\[[0-9]*/' | head -n 40 >&2
    else
      tail -n 40 "/dev/fd/$log" >&2
    fi
  fi
  exec {log}>&-
  return "$code"
}

# --- packages ---------------------------------------------------------------

# Those of the given packages that are not installed, one a line.
packages_missing() {
  local have package
  have=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null)
  for package in "$@"; do
    grep -qx "installed $package" <<<"$have" || say "$package"
  done
}

apt_updated=no

# Install those of the given packages that are missing. Fails, naming them, when they
# cannot be had.
packages_install() {
  local missing unknown=() package as_root=()
  if ! command -v dpkg-query >/dev/null; then
    warn "no dpkg here: taking it that these are installed: $*"
    return 0
  fi
  mapfile -t missing < <(packages_missing "$@")
  [ ${#missing[@]} -gt 0 ] || return 0

  if [ "$(id -u)" = 0 ]; then
    note "Installing packages: ${missing[*]}"
  elif command -v sudo >/dev/null; then
    note "Installing packages with sudo: ${missing[*]}"
    # Without a terminal nobody could answer the question for a password.
    if [ -t 0 ]; then as_root=(sudo); else as_root=(sudo -n); fi
    if ! "${as_root[@]}" true 2>/dev/null; then
      warn "sudo refuses; ask for these packages: ${missing[*]}"
      return 1
    fi
  else
    warn "missing packages, and neither root nor sudo to install them: ${missing[*]}"
    return 1
  fi
  as_root+=(env DEBIAN_FRONTEND=noninteractive)

  if [ $apt_updated = no ]; then
    quietly "${as_root[@]}" apt-get -q -o DPkg::Lock::Timeout=120 update ||
      warn "the package lists could not be refreshed; trying with the old ones"
    apt_updated=yes
  fi
  for package in "${missing[@]}"; do
    apt-cache show --no-all-versions "$package" >/dev/null 2>&1 || unknown+=("$package")
  done
  if [ ${#unknown[@]} -gt 0 ]; then
    warn "the package sources of this machine do not have: ${unknown[*]}"
    return 1
  fi
  quietly "${as_root[@]}" apt-get -q -y -o DPkg::Lock::Timeout=120 \
    install --no-install-recommends "${missing[@]}" || {
    warn "these packages could not be installed: ${missing[*]}"
    return 1
  }
}

# Install packages that bring services, none of which is started. Where an init system runs,
# it would start them from then on, so there they are left to whoever keeps the machine.
packages_without_services() {
  local policy=/usr/sbin/policy-rc.d mine=no code=0
  [ -n "$(packages_missing "$@")" ] || return 0
  if [ "$(id -u)" != 0 ] || [ -d /run/systemd/system ]; then
    warn "not installed, as they bring services: $(packages_missing "$@" | xargs)"
    return 1
  fi
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && mine=yes
  fi
  packages_install "$@" || code=$?
  if [ $mine = yes ]; then rm -f $policy; fi
  return $code
}

# --- build ------------------------------------------------------------------

# configure DIR [-Doption=value ...]: set up a build folder, or change only the options
# that differ from what an earlier call gave. Extra options in $setup_options count for
# the first set-up alone.
setup_options=()
configure() {
  local dir=$1 stamp=$1/.launch-options wanted=() option
  shift
  local info=$dir/meson-info/meson-info.json
  if [ -e "$dir/build.ninja" ] && grep -qsF "\"source\": \"$root\"" "$info"; then
    for option in "$@"; do
      grep -qsxF -e "$option" "$stamp" || wanted+=("$option")
    done
    [ ${#wanted[@]} -gt 0 ] || return 0
    quietly meson setup --reconfigure "$@" "$dir" "$root" || return 1
  else
    # A build folder that was copied along with the tree still points at the old one.
    if [ -d "$dir/meson-private" ]; then rm -rf "$dir"; fi
    quietly meson setup --buildtype=release "${setup_options[@]}" "$@" "$dir" "$root" ||
      return 1
  fi
  printf '%s\n' "$@" >"$stamp"
}

# compile DIR [TARGET]: nothing to see when nothing is wrong.
compile() {
  local dir=$1
  shift
  quietly ninja -C "$dir" "$@"
}

# The program alone, which needs no test packages; those of the build are there.
build_program() {
  local tests=false
  if [ ! -x "$root/build/syncbn" ]; then note "Building build/syncbn"; fi
  if pkg-config --exists cmocka 2>/dev/null; then tests=true; fi
  setup_options=("-Dtests=$tests")
  configure "$root/build" || exit 1
  compile "$root/build" syncbn || exit 1
}

# --- environment ------------------------------------------------------------

# Hardware threads this process may use. nproc itself would answer OMP_NUM_THREADS.
cores() { env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc; }

# Whether processes may copy from each other's memory. Where not (containers, hardened
# kernels), Open MPI's shared memory must go without or it warns and stumbles.
cma_blocked() {
  [ -e /.dockerenv ] || [ -e /run/.containerenv ] ||
    [ "$(cat /proc/sys/kernel/yama/ptrace_scope 2>/dev/null || echo 0)" != 0 ]
}

# Set mpi_env to the variables that NP processes on this machine need; what the user set
# stands.
mpi_environment() {
  local np=$1 n threads
  n=$(cores)
  mpi_env=()
  may_run_as_root
  if [ "$np" -gt "$n" ]; then default_env OMPI_MCA_mpi_yield_when_idle 1; fi
  # Always: Open MPI counts whole cores as its slots, so that it would refuse one process
  # per hardware thread; it changes nothing while the slots suffice.
  default_env OMPI_MCA_rmaps_base_oversubscribe 1
  default_env OMPI_MCA_hwloc_base_binding_policy none
  # Within one machine this is what Open MPI would choose; looking for networks first takes
  # longer than all the rest of its start.
  default_env OMPI_MCA_pml ob1
  threads=${OMP_NUM_THREADS:-$((n > np ? n / np : 1))}
  default_env OMP_NUM_THREADS "$threads"
  if [ $((np * ${threads%%,*})) -gt "$n" ]; then default_env OMP_WAIT_POLICY passive; fi
  process_environment
}

may_run_as_root() {
  [ "$(id -u)" = 0 ] || return 0
  default_env OMPI_ALLOW_RUN_AS_ROOT 1
  default_env OMPI_ALLOW_RUN_AS_ROOT_CONFIRM 1
}

# What every process needs, wherever it runs.
process_environment() {
  if cma_blocked; then default_env OMPI_MCA_btl_vader_single_copy_mechanism none; fi
  # The threads are ours: BLAS runs on one, or its bits depend on their number.
  default_env OPENBLAS_NUM_THREADS 1
  # Under mpirun the program's stderr is a pipe, so it cannot see the terminal itself.
  if [ -t 2 ]; then default_env SYNCBN_TTY 1; fi
}

default_env() { mpi_env+=("$1=${!1-$2}"); }

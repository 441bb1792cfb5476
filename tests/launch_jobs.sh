#!/usr/bin/env bash
# The job scripts of launch/jobs, as far as they can be checked without the systems they
# are for: headers, syntax, fields, packages, and that the program takes their options.
# shellcheck disable=SC2317 # functions are called by name
set -u
. "$(dirname "$0")/program_lib.sh"
top=$(cd "$tests/.." && pwd)
jobs=$top/launch/jobs

for file in "$jobs"/*; do
  name=$(basename "$file")
  case $name in README.md | hosts.example) continue ;; esac
  check "$name: a head with purpose, command, cost, expected, checked" test "$(sed -n \
    's/^# \(Purpose\|Command\|Cost\|Expected\|Checked\)  .*/\1/p' "$file" | paste -sd,)" = \
    Purpose,Command,Cost,Expected,Checked
  check "$name: in the index" has "$name" "$jobs/README.md"
done

in_top() { (cd "$top" && "$@"); }
scripts=("$jobs"/*.sbatch "$jobs"/*.sh)
for file in "${scripts[@]}"; do check "$(basename "$file"): syntax" bash -n "$file"; done
if command -v shellcheck >/dev/null; then
  check 'job scripts: shellcheck' shellcheck "${scripts[@]}"
  check 'launch: shellcheck' in_top shellcheck launch/run launch/local \
    launch/test launch/demo launch/clean launch/daemon launch/lib.sh launch/places.sh \
    launch/outcome.sh launch/signals.sh
else
  skip 'shellcheck: not installed'
fi

# What killed launchers left goes, but not what is in use or has just begun; Slurm may know
# this machine by another name.
cleans() {
  local held mapped host node=node-$$.cluster user gone kept dead code=0
  host=$(uname -n | cut -d. -f1) user=$(id -u)
  gone=("/dev/shm/vader_segment.$host.$user.gone-$$" "/dev/shm/vader_segment.$node.$user.gone"
    /dev/shm/mpich_shar_tmp-gone-$$)
  kept=(/dev/shm/mpich_shar_tmp-open-$$ "/dev/shm/vader_segment.$host.$user.open-$$"
    /dev/shm/mpich_shar_tmp-new-$$)
  touch -d '2 minutes ago' "${kept[@]:0:2}" "${gone[@]}"
  touch "${kept[2]}"
  exec {held}<"${kept[0]}" {mapped}<"${kept[1]}"
  sh -c : &
  dead=$!
  wait $dead
  mkdir -p "sessions/ompi.$host.$user/pid.$$/0" "sessions/ompi.$node.$user/pid.$dead/0"
  TMPDIR=$work/sessions SLURMD_NODENAME=$node "$top/launch/clean" || code=1
  [ "$(find "${kept[@]}" | wc -l)" = 3 ] || code=1
  [ -z "$(find "${gone[@]}" 2>/dev/null)" ] || code=1
  [ "$(find sessions -mindepth 1 -name 'ompi.*' -o -name 'pid.*')" = "sessions/ompi.$host.$user
sessions/ompi.$host.$user/pid.$$" ] || code=1
  exec {held}<&- {mapped}<&-
  rm -rf "${kept[@]}" "${gone[@]}" sessions
  return "$code"
}
check 'launch/clean' cleans

# What a script hands to launch/run, one word a line. Data and epochs are replaced, as
# users may.
mkdir -p tree/launch
printf '#!/bin/sh\nprintf "%%s\\n" "$@" >"%s/words"\n' "$work" >tree/launch/run
chmod +x tree/launch/run
short=(--data synthetic --limit-train 200 --limit-test 50 --epochs 1)
# takes NAME: launch/run takes the options in `words`, and so does the program
takes() {
  local words=() at=0 dry
  mapfile -t words <words
  while [ "${words[at]-syncbn}" != syncbn ]; do at=$((at + 1)); done
  check "$1: hands syncbn to launch/run" test $at -lt ${#words[@]}
  dry=("${words[@]:0:at}")
  check "$1: launch/run takes its options" \
    "$top/launch/run" --dry-run "${dry[@]}" syncbn >dry.txt
  works "$1: the program takes its options" 1 "${words[@]:at+1}" "${short[@]}" \
    --out "out/$1"
}
export SLURM_SUBMIT_DIR=$work/tree PBS_O_WORKDIR=$work/tree PBS_JOBID=12.server
export SLURM_JOB_ID=7 SLURM_ARRAY_TASK_ID=2
printf 'n1\nn1\nn2\nn2\n' >nodes
cp "$jobs/hosts.example" tree/hosts
for file in "${scripts[@]}"; do
  name=$(basename "$file") options=("${short[@]}")
  rm -f words
  case $name in
    slurm-study.sbatch) bash "$file" grid --vary batch=20 --seeds 1 "${options[@]}" ;;
    hosts.sh) (cd tree && bash "$file" "$work/tree/hosts" "${options[@]}") ;;
    pbs.sh) OPTIONS=${options[*]} bash "$file" ;;
    *) bash "$file" "${options[@]}" ;;
  esac
  if [ "$name" = pbs.sh ]; then export PBS_NODEFILE=$work/nodes; fi
  takes "$name"
  unset PBS_NODEFILE
done

if /usr/bin/python3 -c 'import yaml' 2>/dev/null; then
  fields() { /usr/bin/python3 "$tests/support/check_mpijob.py" "$jobs/mpijob.yaml" >words; }
  check 'mpijob.yaml: fields' fields
  mkdir -p etc && cp "$jobs/hosts.example" etc/hosts
  sed -i -e "s:^/etc/mpi/hostfile$:$work/etc/hosts:" words
  takes mpijob.yaml
else
  skip 'mpijob.yaml: python3-yaml is not installed'
fi

# A package that the build needs is in every list of them.
. "$top/launch/lib.sh"
for package in "${build_packages[@]}" "$data_package"; do
  for file in Dockerfile syncbn.def; do
    check "$file installs $package" grep -qw -e "$package" "$jobs/$file"
  done
done
check 'the image and the job agree on sshd' \
  grep -q '>/srv/mpi/.sshd_config ' "$jobs/Dockerfile"
finish

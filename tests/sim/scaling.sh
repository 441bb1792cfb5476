#!/usr/bin/env bash
# Training steps on simulated clusters of up to 1024 processes: which part of a step the
# messages take, weak and strong scaling, exact sums against plain ones, and other ways to
# sum than Open MPI's choice: recursive doubling, and two levels (within a host, then between
# hosts). Repeatable to the last digit: computing is not timed but given.
set -euo pipefail

# Processes of a simulated host are threads of one process here; MPI is what is simulated.
export SBN_SUMS=mpi

usage() {
  cat <<'END'
usage: tests/sim/scaling.sh [-n "NP …"] [-p "PLATFORM …"] [-m NET] [-o DIR]
  -n  process counts (16 64 256 1024; the last takes a quarter of an hour)
  -p  platforms (ethernet fabric): .xml files of this folder
  -m  net (cnn)
  -o  folder for runs.jsonl, scaling.md, scaling.svg (out/sim)
environment:
  MODULE    the simulated program (build/tests/sim/step.so; meson option simgrid)
  IMAGE_US  microseconds of computing an image, forward and backward (41: `syncbn bench
            train` of cnn on one core of the README's machine)
END
}

counts="16 64 256 1024" platforms="ethernet fabric" net=cnn out=out/sim
while getopts n:p:m:o:h option; do
  case $option in
    n) counts=$OPTARG ;;
    p) platforms=$OPTARG ;;
    m) net=$OPTARG ;;
    o) out=$OPTARG ;;
    h) usage; exit 0 ;;
    *) usage >&2; exit 64 ;;
  esac
done
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
module=$(realpath "${MODULE:-build/tests/sim/step.so}") image_us=${IMAGE_US:-41}
[ -e "$module" ] || { echo "scaling: no $module; meson setup -Dsimgrid=enabled" >&2; exit 69; }
command -v smpirun >/dev/null || { echo "scaling: no smpirun (package libsimgrid-dev)" >&2; exit 69; }
if [ -f "$net" ]; then net=$(realpath "$net"); fi
mkdir -p "$out"
out=$(realpath "$out")
work=$(mktemp -d) # the simulator leaves files where it is started
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

# simulate NP PLATFORM PROCESSES_PER_HOST flat|doubling|levels real|replay: a line of JSON.
# flat is what Open MPI chooses.
simulate() {
  local np=$1 platform=$2 per_host=$3 algorithm=$4 mode=$5 sums=()
  for ((i = 0; i * per_host < np; i++)); do echo "node-$i:$per_host"; done >hosts
  case $algorithm in
    doubling) sums=(--cfg=smpi/allreduce:rdb) ;;
    levels) sums=(--cfg=smpi/allreduce:mvapich2_two_level) ;;
  esac
  smpirun -np "$np" -platform "$here/$platform.xml" -hostfile hosts \
    --cfg=smpi/host-speed:10Gf --cfg=smpi/simulate-computation:no \
    --cfg=smpi/coll-selector:ompi "${sums[@]}" --log=root.thres:critical \
    "$module" "$net" $((16 * np)) 1 "${image_us}e-6" "$mode" |
    sed "s/^{/{\"platform\":\"$platform\",\"per_host\":$per_host,\"algorithm\":\"$algorithm\",/"
}

for platform in $platforms; do
  for np in $counts; do
    # the whole library where that is cheap: it must take what its messages take alone
    if [ "$np" -le 64 ]; then mode=real; else mode=replay; fi
    simulate "$np" "$platform" 1 flat $mode
    if [ "$np" -ge 64 ]; then
      simulate "$np" "$platform" 1 doubling replay
      simulate "$np" "$platform" 32 flat replay
      simulate "$np" "$platform" 32 levels replay
    fi
  done
done >"$out/runs.jsonl"
/usr/bin/python3 "$here/table.py" "$out/runs.jsonl" "$image_us" >"$out/scaling.md"
cat "$out/scaling.md"
if command -v gnuplot >/dev/null; then
  /usr/bin/python3 "$here/table.py" --plot "$out/runs.jsonl" "$image_us" | gnuplot >"$out/scaling.svg"
else
  echo "scaling: no picture without gnuplot (package gnuplot-nox)" >&2
fi

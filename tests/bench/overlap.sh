#!/usr/bin/env bash
# Communication that a training step waits for, with and without overlap: sums by MPI over
# shared memory, TCP on the loopback, and TCP between two network namespaces with a limited
# rate. Through memory of the host nothing overlaps by itself: syncbn bench train.
# Exposed is a step at np=2 less a step without any message: two runs at once, each with
# half the batch in one process, so that both cores are as busy as at np=2. Each round
# times all three in turn; medians over rounds.
set -euo pipefail

usage() {
  cat <<'END'
usage: tests/bench/overlap.sh [-r ROUNDS] [-b "BATCH …"] [-n NET] [-w "shm tcp netns"]
  -r  rounds (5)
  -b  global batch sizes (64 256)
  -n  net (cnn)
  -w  over what (shm tcp netns); netns needs root, and is left out with a word without
environment:
  PROGRAM  the program (build/syncbn)
  STEPS    of a run (300)
  RATE     of a namespace's link, as tc understands it (1gbit)
  DELAY    one way, where the kernel has netem (100us)
END
}

rounds=5 batches="64 256" net=cnn ways="shm tcp netns"
while getopts r:b:n:w:h option; do
  case $option in
    r) rounds=$OPTARG ;;
    b) batches=$OPTARG ;;
    n) net=$OPTARG ;;
    w) ways=$OPTARG ;;
    h) usage; exit 0 ;;
    *) usage >&2; exit 64 ;;
  esac
done
cd "$(dirname "$0")/../.."
program=$(realpath "${PROGRAM:-build/syncbn}") steps=${STEPS:-300} rate=${RATE:-1gbit}
[ -x "$program" ] || { echo "overlap: no program $program" >&2; exit 69; }
scratch=$(mktemp -d)
holders=()

export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 OMPI_MCA_hwloc_base_binding_policy=none
if [ "$(id -u)" = 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

# shellcheck disable=SC2317,SC2329 # called by the trap
clean_up() {
  for pid in "${holders[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  for link in "$bridge.1" "$bridge.2" "$bridge"; do
    ip link del "$link" 2>/dev/null || true
  done
  rm -rf "$scratch"
}
# Of this run alone: two scripts at once do not meet.
bridge=sbn$$ subnet=10.$((64 + $$ % 64)).$(($$ / 64 % 256))
trap clean_up EXIT
trap 'exit 1' INT TERM

skip() {
  echo "netns: skipped, $*"
  return 1
}

make_bridge() {
  ip link add "$bridge" type bridge 2>/dev/null &&
    ip addr add "$subnet.254/24" dev "$bridge" && ip link set "$bridge" up
}

# make_link HOST PID: between the bridge and the namespace
make_link() {
  ip link add "$bridge.$1" type veth peer name eth0 netns "$2" &&
    ip link set "$bridge.$1" master "$bridge" up &&
    nsenter -t "$2" -n ip link set lo up &&
    nsenter -t "$2" -n ip addr add "$subnet.$1/24" dev eth0 &&
    nsenter -t "$2" -n ip link set eth0 up && limit "$2"
}

# Two pretend hosts: each a network of its own on a bridge, with a name of its own, so
# that MPI does not take them for one.
make_hosts() {
  local i pid
  [ "$(id -u)" = 0 ] || skip needs root || return 1
  for i in ip tc unshare nsenter; do
    command -v $i >/dev/null || skip "no $i" || return 1
  done
  make_bridge || skip no bridge can be made here || return 1
  printf '127.0.0.1 localhost\n%s.1 h1\n%s.2 h2\n' "$subnet" "$subnet" >"$scratch/hosts"
  : >"$scratch/hostfile"
  for i in 1 2; do
    setsid unshare --net --uts --ipc --pid --mount --fork --kill-child --mount-proc \
      --propagation private sh -c "hostname h$i && mount --bind '$scratch/hosts' \
      /etc/hosts && exec sleep infinity" </dev/null >/dev/null 2>&1 &
    holders+=($!)
    disown
    for _ in $(seq 50); do
      pid=$(pgrep -P "${holders[-1]}" || true)
      [ -n "$pid" ] && break
      sleep 0.1
    done
    [ -n "$pid" ] || skip no namespace can be made here || return 1
    echo "$pid" >"$scratch/h$i.pid"
    make_link "$i" "$pid" || skip "no link of $rate can be made here" || return 1
    echo "h$i slots=1" >>"$scratch/hostfile"
  done
  # what mpirun calls in the place of ssh: [options] HOST COMMAND...
  cat >"$scratch/agent" <<END
#!/bin/sh
while [ "\${1#-}" != "\$1" ]; do shift; done
pid=\$(cat "$scratch/\$1.pid") || exit 255
shift
exec nsenter -t "\$pid" --net --uts --ipc --pid --mount -- /bin/sh -c "\$*"
END
  chmod +x "$scratch/agent"
}

# Rate, and delay where there is netem.
limit() { # pid
  local delay=${DELAY:-100us}
  if nsenter -t "$1" -n tc qdisc add dev eth0 root netem delay "$delay" rate "$rate" \
    2>/dev/null; then
    link="$rate, $delay"
  else
    nsenter -t "$1" -n tc qdisc add dev eth0 root tbf rate "$rate" burst 16k latency 50ms
    link="$rate, no netem: no delay added"
  fi
}

# Microseconds of a step, from the rate of the run.
step_us() { # folder batch
  sed -n 's/.*"kind":"done".*"images_per_s":\([0-9.e+]*\).*/\1/p' "$1/metrics.jsonl" |
    awk -v batch="$2" '{ printf "%.1f\n", 1e6 * batch / $1 }'
}

train() { # folder batch mpirun's arguments...
  local folder=$1 batch=$2
  shift 2
  rm -rf "$folder"
  if ! SBN_SUMS=mpi mpirun "$@" "$program" train --net "$net" --data "${DATA:-synthetic}" \
    --batch "$batch" --limit-train 4096 --limit-test 1 --steps "$steps" \
    --checkpoint-every 1000000 --progress none --out "$folder" "${options[@]}" \
    >"$folder.log" 2>&1; then
    tail -n 5 "$folder.log" >&2
    return 1
  fi
}

measure() { # way batch
  local arguments=(-np 2) options=()
  case $1 in
    shm) ;;
    tcp) arguments+=(--mca btl "self,tcp" --mca btl_tcp_if_include lo) ;;
    netns)
      arguments+=(--mca plm_rsh_agent "$scratch/agent" --hostfile "$scratch/hostfile"
        --mca orte_keep_fqdn_hostnames 1 --mca oob_tcp_if_include "$subnet.0/24"
        --mca btl_tcp_if_include "$subnet.0/24" --mca btl "self,tcp" --mca pml ob1
        --map-by node)
      ;;
  esac
  local order=(on off none) turn i
  for turn in $(seq "$rounds"); do
    for i in 0 1 2; do
      case ${order[(i + turn) % 3]} in
        on) options=() && train "$scratch/on" "$2" "${arguments[@]}" ;;
        off) options=(--no-overlap) && train "$scratch/off" "$2" "${arguments[@]}" ;;
        none)
          options=()
          train "$scratch/none1" $(($2 / 2)) -np 1 &
          train "$scratch/none2" $(($2 / 2)) -np 1 && wait $!
          ;;
      esac || return 1
    done
    printf '%s %s %s %s\n' "$(step_us "$scratch/on" "$2")" \
      "$(step_us "$scratch/off" "$2")" "$(step_us "$scratch/none1" $(($2 / 2)))" \
      "$(step_us "$scratch/none2" $(($2 / 2)))"
  done
}

median() {
  sort -g | awk '{ v[NR] = $1 } END {
    print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'
}

printf '| over | batch | no message | blocking | overlap '
echo '| exposed, blocking | exposed, overlap |'
echo "|---|---:|---:|---:|---:|---:|---:|"
link=
for way in $ways; do
  if [ "$way" = netns ] && ! make_hosts; then continue; fi
  for batch in $batches; do
    measure "$way" "$batch" >"$scratch/times"
    awk '{ n = ($3 + $4) / 2; print $1, $2, n, $2 - n, $1 - n }' "$scratch/times" \
      >"$scratch/columns"
    column() { awk -v k="$1" '{ print $k }' "$scratch/columns" | median; }
    printf '| %s | %d | %.0f µs | %.0f µs | %.0f µs | %.0f µs | %.0f µs |\n' \
      "$way${link:+ ($link)}" "$batch" "$(column 3)" "$(column 2)" "$(column 1)" \
      "$(column 4)" "$(column 5)"
  done
done
echo "$rounds rounds of $steps steps of $net; load $(cut -d' ' -f1-3 /proc/loadavg)"

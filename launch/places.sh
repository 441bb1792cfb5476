# shellcheck shell=bash disable=SC2154 # root is that of lib.sh
# Where a program can run: this machine, the hosts of a file, a Slurm allocation. Sourced
# after lib.sh. A place is $place (alone, hosts, slurm) with one entry per host in $hosts
# and, as many processes as it takes, in $slots.

place='' hosts=() slots=()

# "n[1-3,7]" of Slurm as names, one a line
expand_hosts() {
  local list=$1 prefix body part from to n
  # Slurm itself knows every form.
  if command -v scontrol >/dev/null && scontrol show hostnames "$list" 2>/dev/null; then
    return
  fi
  while [[ $list =~ ^([^][,]*)(\[([^]]*)\])?,?(.*)$ ]] && [ -n "$list" ]; do
    prefix=${BASH_REMATCH[1]} body=${BASH_REMATCH[3]} list=${BASH_REMATCH[4]}
    if [ -z "$body" ]; then
      say "$prefix"
      continue
    fi
    for part in ${body//,/ }; do
      from=${part%-*} to=${part#*-}
      for ((n = 10#$from; n <= 10#$to; n++)); do
        printf "%s%0${#from}d\n" "$prefix" "$n"
      done
    done
  done
}

# "2(x3),1" of Slurm as 2 2 2 1, one a line
expand_counts() {
  local part times
  for part in ${1//,/ }; do
    times=1
    if [[ $part =~ \(x([0-9]+)\)$ ]]; then times=${BASH_REMATCH[1]}; fi
    while [ $((times--)) -gt 0 ]; do say "${part%%(*}"; done
  done
}

# Add up the lines of a host file, each `HOST`, `HOST:N` or `HOST slots=N`: a host named
# again has more slots, as in the files of PBS.
read_hostfile() {
  local file=$1 line words host count i
  [ -r "$file" ] || die 64 "hosts: cannot read $file"
  while read -r line || [ -n "$line" ]; do
    read -ra words <<<"${line%%#*}"
    [ ${#words[@]} -gt 0 ] || continue
    host=${words[0]} count=1
    if [[ $host =~ ^(.*):([0-9]+)$ ]]; then
      host=${BASH_REMATCH[1]} count=${BASH_REMATCH[2]}
    fi
    for line in "${words[@]:1}"; do
      case $line in slots=*) count=${line#slots=} ;; esac
    done
    case $count in
      *[!0-9]* | 0* | ?????* | '')
        die 64 "$file: $host: expected slots=1 to 9999, got '$count'"
        ;;
    esac
    for i in "${!hosts[@]}"; do
      [ "${hosts[i]}" = "$host" ] || continue
      slots[i]=$((slots[i] + count))
      continue 2
    done
    hosts+=("$host") slots+=("$count")
  done <"$file"
  [ ${#hosts[@]} -gt 0 ] || die 64 "$file: expected a host a line, found none"
}

# find_place HOSTFILE HERE: the place this shell is in; HERE=yes looks no further than
# this machine.
hostfile=
find_place() {
  hostfile=$1
  if [ "$2" = yes ]; then
    place=alone
  elif [ -n "$hostfile" ]; then
    place=hosts
    read_hostfile "$hostfile"
  elif [ -n "${SLURM_JOB_ID-}" ] && [ -n "${SLURM_JOB_NODELIST-}" ]; then
    place=slurm
    mapfile -t hosts < <(expand_hosts "$SLURM_JOB_NODELIST")
    mapfile -t slots < <(expand_counts "${SLURM_TASKS_PER_NODE:-$SLURM_JOB_CPUS_PER_NODE}")
  elif [ -n "${PBS_NODEFILE-}" ]; then
    place=hosts hostfile=$PBS_NODEFILE
    read_hostfile "$hostfile"
  else
    place=alone
  fi
  if [ "$place" = alone ]; then hosts=("$(uname -n)") slots=("$(cores)"); fi
}

total_slots() {
  local sum=0 n
  for n in "${slots[@]}"; do sum=$((sum + n)); done
  say $sum
}

# The remote shell that mpirun takes as well, as words in $remote_shell.
find_remote_shell() {
  local args
  # "ssh : rsh" is Open MPI's list of shells to choose from.
  read -ra remote_shell <<<"${OMPI_MCA_plm_rsh_agent:-ssh}"
  [ "${remote_shell[1]-}" != : ] || remote_shell=("${remote_shell[0]}")
  read -ra args <<<"${OMPI_MCA_plm_rsh_args-}"
  case ${remote_shell[0]} in
    ssh | */ssh) args=(-o BatchMode=yes -o ConnectTimeout=5 "${args[@]}") ;;
  esac
  remote_shell+=("${args[@]}")
}

# clean_host HOST: remove what MPI left there. Fails where it takes no commands, as one that is
# lost; this machine needs no asking.
clean_host() {
  local state said me clean
  me=$(uname -n) clean="timeout 5 $(printf %q "$root/launch/clean") || :"
  case $1 in
    localhost | 127.* | "$me" | "${me%%.*}")
      sh -c "$clean"
      return
      ;;
  esac
  if [ "$place" = slurm ]; then
    # A star marks a node that does not respond.
    state=$(sinfo -h -N -n "$1" -o %T 2>/dev/null | head -n 1)
    case $state in '' | *'*' | down* | fail* | unknown*) return 1 ;; esac
    # Slurm itself takes minutes (SlurmdTimeout) to notice that one is lost. What it refuses
    # to start says nothing about the node.
    command -v srun >/dev/null || return 0
    said=$({ SLURM_OVERLAP=1 timeout -k 1 "$probe_s" srun --mpi=none --nodes=1 --ntasks=1 \
      --nodelist="$1" sh -c "$clean" </dev/null; } 2>&1) && return
    case $?:$said in 124:* | 137:* | *ommunication* | *'imed out'* | *'launch failed'*) return 1 ;; esac
    return 0
  fi
  timeout -k 1 "$probe_s" "${remote_shell[@]}" "$1" "$clean" </dev/null >/dev/null 2>&1
}
probe_s=10

# Keep in $hosts and $slots those hosts that live, without what MPI left there; the names of
# the others go to $lost.
# shellcheck disable=SC2034 # lost: for the script that sources this
clean_and_drop_lost_hosts() {
  local i from children=() live_hosts=() live_slots=()
  lost=()
  [ "$place" != alone ] || return 0
  find_remote_shell
  # a few at a time, for the sake of who answers
  for ((from = 0; from < ${#hosts[@]}; from += 32)); do
    for ((i = from; i < from + 32 && i < ${#hosts[@]}; i++)); do
      clean_host "${hosts[i]}" &
      children[i]=$!
    done
    for ((i = from; i < from + 32 && i < ${#hosts[@]}; i++)); do
      if wait_through "${children[i]}"; then
        live_hosts+=("${hosts[i]}") live_slots+=("${slots[i]}")
      else
        lost+=("${hosts[i]}")
      fi
    done
  done
  hosts=("${live_hosts[@]}") slots=("${live_slots[@]}")
}

# "h1:2,h2:1" for mpirun
host_list() {
  local i list=
  for i in "${!hosts[@]}"; do list+=${list:+,}${hosts[i]}:${slots[i]}; done
  say "$list"
}

#!/usr/bin/env bash
# Two hosts, h1 and h2, each with its own processes, name, network and memory, reached by
# mpirun from a third through an agent or a real sshd. Weights are those of one process,
# byte for byte, also when a host or its link is lost on the way.
# shellcheck disable=SC2317 # functions are called by name
set -u
. "$(dirname "$0")/cluster_lib.sh"
if [ -z "${CLUSTER_WORLD-}" ]; then needs sshd ssh ssh-keygen mpirun; fi
enter_world "$@"

hosts=/mnt/hosts.d
mkdir $hosts
printf '10.77.0.1 h1\n10.77.0.2 h2\n' >>/mnt/hosts
# A folder of its own for each: names are those of processes as seen from here.
declare -A keeper
# host_up N: power on; the first process of host hN is $hosts/hN.pid
host_up() {
  local n=$1 pid
  unshare --net --uts --ipc --pid --mount --fork --kill-child --mount-proc \
    --propagation private bash -c "hostname h$n && mount -t tmpfs tmpfs /dev/shm &&
    mount -t tmpfs tmpfs /tmp && mount -t tmpfs tmpfs /run && mkdir /run/sshd &&
    touch $hosts/h$n.up && while :; do sleep 1000 & wait; done" </dev/null 2>/dev/null &
  keeper[$n]=$!
  wait_for 10 test -e "$hosts/h$n.up"
  read -r pid _ <"/proc/${keeper[$n]}/task/${keeper[$n]}/children"
  echo "$pid" >"$hosts/h$n.pid"
  ip link add "link$n" type veth peer name eth0 netns "$pid"
  ip link set "link$n" master net0 up
  inside "h$n" sh -c "ip link set lo up && ip addr add 10.77.0.$n/24 dev eth0 &&
    ip link set eth0 up"
}
# inside HOST COMMAND...: login is where launch/run is, which sees the processes of all
inside() {
  if [ "$1" = login ]; then
    "${@:2}"
    return
  fi
  nsenter -t "$(cat "$hosts/$1.pid")" --net --uts --ipc --pid --mount -- "${@:2}"
}
# link_up N: again; the kernel takes a while to find its way through a link that was cut
link_up() {
  ip link set "link$1" up
  check "the link of h$1 is whole again" wait_for 10 reaches_login "h$1"
}
# that nobody listens is an answer
reaches_login() {
  inside "$1" timeout 1 bash -c ': >/dev/tcp/10.77.0.254/9' 2>&1 | grep -q refused
}
# switch_off N: all of its processes and its network are gone at once
switch_off() {
  local pid
  pid=$(cat "$hosts/h$1.pid")
  rm "$hosts/h$1.pid"
  kill -9 "$pid"
  wait "${keeper[$1]}" 2>/dev/null
}
# no_orphans HOST...: each can be asked, and has no process of a job
no_orphans() {
  local host left
  for host in "$@"; do
    left=$(inside "$host" $job_processes) && [ -z "$left" ] || return 1
  done
}

# What mpirun uses in the place of ssh; options come before the name of the host. As ssh, it
# does not notice that a host is gone.
cat >$hosts/agent <<END
#!/bin/sh
while [ "\${1#-}" != "\$1" ]; do shift; done
host=\$1
pid=\$(cat $hosts/\$host.pid) || exit 255
shift
nsenter -t \$pid --net --uts --ipc --pid --mount -- /bin/sh -c "cd /mnt/tree; \$*"
code=\$?
[ -e $hosts/\$host.pid ] || exec sleep 1000
exit \$code
END
chmod +x $hosts/agent
start_sshd() {
  local n
  ssh-keygen -q -t ed25519 -N '' -f $hosts/host_key
  ssh-keygen -q -t ed25519 -N '' -f $hosts/key
  cat >$hosts/sshd_config <<END
HostKey $hosts/host_key
AuthorizedKeysFile $hosts/key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
PidFile none
END
  cat >$hosts/ssh_config <<END
Host h1 h2
  IdentityFile $hosts/key
  UserKnownHostsFile $hosts/known
  StrictHostKeyChecking accept-new
  LogLevel ERROR
END
  # Without PAM sshd refuses an account whose password is locked.
  sed 's/^root:[^:]*:/root:*:/' /etc/shadow >$hosts/shadow
  for n in 1 2; do
    inside h$n mount --bind $hosts/shadow /etc/shadow
    inside h$n "$(command -v sshd)" -f $hosts/sshd_config
  done
}

printf 'h1 slots=2\nh2 slots=2\n' >hosts
# by_file NAME ARGUMENT...: on both hosts, in out/NAME; what it says goes to NAME.txt
by_file() {
  local name=$1
  shift
  launch/run --hostfile hosts --interface 10.77.0.0/24 "${run_options[@]}" build/syncbn \
    train "${train[@]}" --out "out/$name" "$@" >"$name.txt" 2>&1 </dev/null
}
run_options=()
on_two_hosts() { grep -q '"hosts": *2' "out/$1/run.json"; }

host_up 1
host_up 2
names() { [ "$(inside h1 uname -n) $(inside h2 uname -n)" = 'h1 h2' ]; }
check 'two hosts are up' names
# What the checks below have to see: a script that has not become the program yet.
left_behind() {
  local left
  check 'no process of a job is there' no_orphans h1 h2
  inside h2 env OMPI_COMM_WORLD_RANK=3 sh -c 'sleep 60; :' 2>/dev/null &
  two_left() { [ "$(inside h2 "$job_processes" | wc -l)" = 2 ]; }
  wait_for 5 two_left
  left=$(inside h2 $job_processes)
  check 'one that is left is seen' test "$(wc -l <<<"$left")" = 2
  if no_orphans h1 h2; then fail 'nothing is said of it'; fi
  inside h2 sh -c "kill $(cut -d' ' -f1 <<<"$left" | xargs)"
  wait $! 2>/dev/null
}
left_behind
short=(--epochs 20)
reference short "${short[@]}"
export OMPI_MCA_plm_rsh_agent=$hosts/agent
check 'by an agent' by_file agent "${short[@]}"
check 'agent: on two hosts' on_two_hosts agent
check 'agent: the weights of one process' same short agent
export OMPI_MCA_btl_tcp_if_include=10.77.0.0/24 OMPI_MCA_oob_tcp_if_include=10.77.0.0/24
printf 'h1\nh1\nh2\nh2\n' >nodes
pbs() {
  PBS_NODEFILE=$PWD/nodes PBS_O_WORKDIR=$PWD PBS_JOBID=12.server \
    OPTIONS="${train[*]} ${short[*]}" launch/jobs/pbs.sh >pbs.txt 2>&1
}
check 'the node file of PBS, launch/jobs/pbs.sh' pbs
check 'PBS: the weights of one process' same short pbs-12
unset OMPI_MCA_plm_rsh_agent

start_sshd
export OMPI_MCA_plm_rsh_args="-F $hosts/ssh_config"
by_ssh() { launch/jobs/hosts.sh hosts "${train[@]}" "${short[@]}" >ssh.txt 2>&1; }
check 'by sshd, launch/jobs/hosts.sh' by_ssh
check 'sshd: on two hosts' on_two_hosts hosts
check 'sshd: the weights of one process' same short hosts
check 'nothing is left on either host' wait_for 5 no_orphans h1 h2 login

# Data of the same size, and of other content on one host: what one process cannot see.
other_data() {
  cp -r data data2
  printf '\377' | dd of=data2/train-images-idx3-ubyte bs=1 seek=5000 conv=notrunc status=none
  inside h2 mount --bind /mnt/tree/data2 /mnt/tree/data
  by_file other "${short[@]}"
  [ $? = 78 ] && grep -q 'the data set differs between processes: .*process' other.txt
}
check 'another data set of the same size on one host: 78, and who has it' other_data
inside h2 umount /mnt/tree/data

# no_files HOST...: each can be asked, and has no file of MPI
no_files() {
  local host left
  for host in "$@"; do
    left=$(inside "$host" find /tmp /dev/shm \
      \( -name 'pid.*' -o -name 'jf.*' -o -name 'vader_*' \)) && [ -z "$left" ] || return 1
  done
}

limit_s=3
# ends_in_time TEXT NAME SINCE-US [MORE-MS]: the job in the background, by a line
ends_in_time() {
  local code took_ms at_most_ms=$((1000 * limit_s + ${4:-2000}))
  wait "$job"
  code=$?
  took_ms=$(((${EPOCHREALTIME/./} - $3) / 1000))
  check "$1: exit code 86, got $code" test $code = 86
  check "$1: after $took_ms ms, at most $at_most_ms" test $took_ms -le $at_most_ms
  check "$1: one line: $(cat "$2.txt")" test "$(grep -c '^syncbn: ' "$2.txt")" = 1
  check "$1: no process is left" wait_for 15 no_orphans h1 h2 login
  check "$1: nor files of MPI" wait_for 5 no_files h1 h2 login
}

# One process of h2 stands still, while its neighbour and h1 go on.
stop_one() {
  local since
  by_file stopped --epochs 100000000 --stall-limit $limit_s &
  job=$!
  check 'a job is under way' wait_for 60 has_steps stopped 9
  since=${EPOCHREALTIME/./}
  # shellcheck disable=SC2016 # for the inner shell
  inside h2 sh -c 'for p in /proc/[0-9]*; do
    ! grep -qsz "^OMPI_COMM_WORLD_RANK=3$" $p/environ || kill -STOP "${p#/proc/}"
  done'
  ends_in_time 'a process stopped on one host' stopped "$since"
  check 'it tells which' grep -qE 'no progress in [a-z].* for process 3, ([a-z ]* )?stopped' \
    stopped.txt
}
stop_one

# The same where MPI has not started.
cp build/syncbn whole
# begin_with HOST: its processes run these lines first
# shellcheck disable=SC2016 # for the script
begin_with() {
  { printf '#!/bin/sh\nrank=$OMPI_COMM_WORLD_RANK\n' && cat && echo 'exec ./whole "$@"'; } >late
  chmod +x late
  inside "$1" mount --bind "$PWD/late" "$PWD/build/syncbn"
}
begin_as_before() { inside "$1" umount "$PWD/build/syncbn"; }
begun() { [ "$(find . -maxdepth 1 -name 'begun.*' | wc -l)" = "$1" ]; }

# do_not_begin TEXT NAME HOST N PATTERN: N of its processes stop instead
do_not_begin() {
  local since
  rm -f begun.*
  by_file "$2" --stall-limit $limit_s &
  job=$!
  check "$1: the job begins" wait_for 60 begun "$4"
  since=${EPOCHREALTIME/./}
  ends_in_time "$1" "$2" "$since"
  check "$1: it tells which" grep -q "$5" "$2.txt"
  begin_as_before "$3"
}
# h1 misses nobody and leaves it to h2.
begin_with h2 <<'END'
[ $rank = 2 ] || { : >begun.$rank; kill -STOP $$; }
END
do_not_begin 'one of a host stopped before MPI starts' one h2 1 \
  'for 1 of this host (not there), of processes 0, 1, 3;'
for n in 1 2; do
  begin_with h$n <<'END'
: >begun.$rank
kill -STOP $$
END
  do_not_begin "both of h$n stopped before MPI starts" both-$n h$n 2 \
    "for some of processes $((2 * n - 2)), $((2 * n - 1)) (not on this host)"
done

# A plain mpirun wakes those of h1, and leaves them two seconds.
by_mpirun() {
  mpirun --quiet -np 4 --hostfile hosts build/syncbn train "${train[@]}" --out "out/$1" \
    --stall-limit $limit_s >"$1.txt" 2>&1 </dev/null
}
plain_mpirun() {
  local since
  rm -f begun.*
  begin_with h1 <<'END'
: >begun.$rank
kill -STOP $$
END
  OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 by_mpirun plain &
  job=$!
  check 'plain mpirun: the job begins' wait_for 60 begun 2
  since=${EPOCHREALTIME/./}
  ends_in_time 'plain mpirun, both of h1 stopped before MPI starts' plain "$since" 4000
  begin_as_before h1
}
plain_mpirun

# Here h2 is late because its link is cut before it begins.
cut_before() {
  local since
  rm -f begun.*
  begin_with h2 <<'END'
: >begun.$rank
until [ -e link-cut ]; do sleep 0.05; done
END
  by_file never --stall-limit $limit_s &
  job=$!
  check 'the job begins' wait_for 60 begun 2
  ip link set link2 down
  since=${EPOCHREALTIME/./}
  : >link-cut
  ends_in_time 'a link cut before MPI starts' never "$since"
  check 'it tells who may be missing' grep -q \
    'for some of processes [0-3], [0-3] (not on this host)' never.txt
  link_up 2
  begin_as_before h2
}
cut_before

# A link that is cut tells nobody: each process finds out by itself, and so does what
# started them.
cut_link() {
  local since
  by_file cut --epochs 100000000 --stall-limit $limit_s &
  job=$!
  check 'a job is under way' wait_for 60 has_steps cut 9
  ip link set link2 down
  since=${EPOCHREALTIME/./}
  ends_in_time 'a cut link' cut "$since"
  check 'it tells where, and who did not come' grep -q \
    'no progress in [a-z].* (call [0-9]*, step [0-9]*).*process.* on h2' cut.txt
  link_up 2
}
cut_link

# While process 0 waits for its folder, or reads data, the others wait for as long as that
# takes, and for no longer than the limit where its host is lost.
cut_while_it_works() {
  local since holder
  launch/run --here -np 1 build/syncbn train "${train[@]}" --epochs 100000000 --out out/held \
    >holder.txt 2>&1 </dev/null &
  holder=$!
  check 'a folder is in use' wait_for 60 has_steps held 1
  SBN_LOCK_WAIT=100 by_file held --stall-limit $limit_s &
  job=$!
  runs_on() { inside "$1" pgrep -x syncbn >/dev/null; }
  check 'a job waits for it' wait_for 60 eval 'runs_on h1 && runs_on h2'
  sleep $((limit_s + 3))
  check 'for longer than the limit' test ! -s held.txt
  ip link set link1 down
  since=${EPOCHREALTIME/./}
  kill "$holder"
  ends_in_time 'a host lost while the other waits for its work' held "$since"
  check 'it tells which' grep -q 'for a sign of life from: processes 0, 1 on h1;' held.txt
  wait "$holder"
  link_up 1
}
cut_while_it_works

unset OMPI_MCA_plm_rsh_args
export OMPI_MCA_plm_rsh_agent=$hosts/agent
long=(--epochs 60)
reference long "${long[@]}"
run_options=(--max-restarts 1)
by_file off "${long[@]}" --stall-limit $limit_s &
job=$!
check 'a job is under way' wait_for 60 has_steps off 9
since=${EPOCHREALTIME/./}
# that of process 0, which writes: nobody hears of its end
ip link set link1 down
switch_off 1
ends_by_watch 'a host switched off' off.txt '(call [0-9]*, step [0-9]*).*process.* on h1' \
  "$since" $((1000 * limit_s + 2000))
check 'off: the job ends well' wait "$job"
check 'off: one line of the watch' test "$(grep -c '^syncbn: no progress' off.txt)" = 1
check 'off: it tells which' grep -q 'lost: h1$' off.txt
check 'off: in as many processes as the other takes' grep -q 'restart 1 of 1, processes: 2, ' off.txt
check 'off: the weights of one process' same long off
check 'off: no process is left elsewhere' wait_for 5 no_orphans h2 login
check 'off: nor files of MPI' wait_for 5 no_files h2 login
still_off() { ! inside h1 true && ! no_orphans h1 && ! no_files h1; } 2>/dev/null
check 'off: it stays off' still_off
if [ $failed != 0 ]; then for file in ./*.txt; do show "$file"; done; fi
finish

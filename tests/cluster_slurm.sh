#!/usr/bin/env bash
# The Slurm job scripts of launch/jobs under a real Slurm: its controller and four virtual
# nodes in a world of their own. Weights are those of one process, byte for byte.
# shellcheck disable=SC2317 # functions are called by name
set -u
. "$(dirname "$0")/cluster_lib.sh"
if [ -z "${CLUSTER_WORLD-}" ]; then
  needs munged slurmctld slurmd sbatch srun scontrol squeue sinfo
fi
enter_world "$@"

slurm=/mnt/slurm
export SLURM_CONF=$slurm/slurm.conf
start_slurm() {
  local i
  mkdir -p $slurm/{state,log,run}
  head -c 128 /dev/urandom >$slurm/munge.key
  chmod 400 $slurm/munge.key
  munged --force --key-file=$slurm/munge.key --socket=$slurm/run/munge.sock \
    --pid-file=$slurm/run/munged.pid --log-file=$slurm/log/munged.log \
    --seed-file=$slurm/run/munged.seed --num-threads=2
  # Each node has its own TmpFS: two would not make the same folder of PMIx.
  cat >$SLURM_CONF <<END
ClusterName=lab
SlurmctldHost=login(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$slurm/run/munge.sock
CredType=cred/munge
MpiDefault=pmix
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,defer_batch
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=5
MinJobAge=300
JobRequeue=1
SlurmctldPidFile=$slurm/run/slurmctld.pid
SlurmdPidFile=$slurm/run/slurmd-%n.pid
StateSaveLocation=$slurm/state
SlurmdSpoolDir=$slurm/state/%n
TmpFS=$slurm/tmp/%n
SlurmctldLogFile=$slurm/log/slurmctld.log
SlurmdLogFile=$slurm/log/slurmd-%n.log
END
  for i in 1 2 3 4; do
    mkdir -p $slurm/state/n$i $slurm/tmp/n$i
    printf 'NodeName=n%d NodeHostname=login NodeAddr=127.0.0.1 Port=%d CPUs=1 \
RealMemory=500 State=UNKNOWN\n' $i $((26900 + i))
  done >>$SLURM_CONF
  printf 'PartitionName=main Nodes=n[1-4] Default=YES MaxTime=INFINITE State=UP\n' \
    >>$SLURM_CONF
  printf 'CgroupAutomount=no\n' >$slurm/cgroup.conf
  slurmctld -c -f $SLURM_CONF || return 1
  for i in 1 2 3 4; do slurmd -N n$i -f $SLURM_CONF || return 1; done
  wait_for 30 nodes_idle 4
}
nodes_idle() { [ "$(sinfo -h -t idle -o %D 2>/dev/null | head -n 1)" = "$1" ]; }

# submit SCRIPT ARGUMENT...: its number in $job
submit() {
  local script=$1 options=("${train[@]}")
  shift
  if [ "$script" = slurm-study.sbatch ]; then options=(); fi
  job=$(sbatch --parsable "${sbatch_options[@]}" "launch/jobs/$script" "${options[@]}" "$@")
}
sbatch_options=()
# what the job says
log_of() { echo ./syncbn*-"$1".txt; }
state_of() { scontrol -o show job "$1" | grep -o 'JobState=[A-Z]*' | sort -u | xargs; }
over() { [ -z "$(squeue -h -j "$job" -t pd,r,cg,s 2>/dev/null)" ]; }
# done_well TEXT: the job has ended, with exit code 0
done_well() {
  if wait_for 150 over && [ "$(state_of "$job")" = JobState=COMPLETED ]; then
    pass "$1"
  else
    fail "$1: $(state_of "$job")"
    show ./*-"$job"*.txt
    tail -n 8 $slurm/log/slurmctld.log
  fi
}

if ! start_slurm; then
  tail -n 8 $slurm/log/*
  fail 'Slurm comes up'
  finish
fi
pass 'Slurm comes up with four nodes'
short=(--epochs 20)
reference short "${short[@]}"

submit slurm-srun.sbatch "${short[@]}"
done_well 'a job by srun'
check 'srun: the weights of one process' same short "slurm-$job"
check 'srun: on four processes' grep -q '"processes": *4' "out/slurm-$job/run.json"

submit slurm-mpirun.sbatch "${short[@]}"
done_well 'a job by mpirun'
check 'mpirun: the weights of one process' same short "slurm-$job"

sbatch_options=('--array=1,3')
submit slurm-array.sbatch "${short[@]}"
sbatch_options=()
for n in 4 16; do reference "one-$n" "${short[@]}" --norm-batch $n; done
done_well 'an array of two'
for n in 4 16; do
  check "array: norm batch $n as one process" same one-$n norm-batch-$n
done

study=(grid --vary 'norm-batch=4,20' --seeds 2 --data data --batch 20 --epochs 2)
launch/run --here -np 1 build/syncbn study "${study[@]}" --out out/study-one >/dev/null 2>&1
submit slurm-study.sbatch "${study[@]}" --out out/study-four
done_well 'a study on four tasks'
summaries() { cmp out/study-one/summary.csv out/study-four/summary.csv; }
check 'study: the results of one process' summaries

# Runs that are disturbed: made long, so that they are met before their end.
long=(--epochs 100)
reference long "${long[@]}"
whole_job() { has_steps "slurm-$job" 21; }

submit slurm-preempt.sbatch "${long[@]}"
check 'a job to preempt is under way' wait_for 60 whole_job
scancel --batch --signal=USR1 "$job"
waits_again() { scontrol -o show job "$job" | grep -q 'JobState=PENDING.*Restarts=1'; }
check 'USR1: it is in the queue again' wait_for 30 waits_again
check 'it had saved' grep -q "stopped by a signal after step [0-9]* of 300, saved" \
  "syncbn-preempt-$job.txt"
check 'and ended with 75' grep -q 'exit code 75, stopped on request' "syncbn-preempt-$job.txt"
check 'before its end' test ! -e "out/slurm-$job/model.safetensors"
# Slurm lets a job that was put back wait for two minutes. Within the same second, or while
# a node still ends the old start, it would take the new start's credential for the old one's,
# which it has revoked.
start_again() {
  check 'its nodes are free' wait_for 30 nodes_idle 4
  sleep 2
  scontrol update "JobId=$job" StartTime=now
}
start_again
done_well 'started again, it ends'
check 'preempted: the weights of one process' same long "slurm-$job"

# Slurm looks at the time that is left twice a minute.
sbatch_options=(--time=1)
submit slurm-srun.sbatch --epochs 100000000
sbatch_options=()
check 'a job that has too little time is under way' wait_for 60 whole_job
check 'time limit: Slurm tells it before, and it ends' wait_for 150 over
check 'time limit: it had saved' grep -q 'stopped by a signal after step [0-9]* of .*, saved' \
  "$(log_of "$job")"
exit_75() { scontrol -o show job "$job" | grep -q ' ExitCode=75:0 '; }
check 'time limit: and ended with 75' exit_75

submit slurm-srun.sbatch "${long[@]}"
check 'a job to lose a process is under way' wait_for 60 whole_job
# process_with VARIABLE=VALUE: the pid of the program's process that has it
process_with() {
  local pid
  for pid in /proc/[0-9]*; do
    grep -qsz "^$1\$" "$pid/environ" &&
      [ "$(readlink "$pid/exe")" = /mnt/tree/build/syncbn ] && echo "${pid#/proc/}"
  done
}
kill -9 "$(process_with SLURM_PROCID=2)"
done_well 'a process is killed, and the job starts again'
check 'that is told' grep -q 'restart 1 of 2' "$(log_of "$job")"
check 'killed: the weights of one process' same long "slurm-$job"

limit_s=3
# ends_in_good_time TEXT RANK SINCE-US: and is told for want of whom
ends_in_good_time() {
  ends_by_watch "$1" "$(log_of "$job")" "(call [0-9]*, step [0-9]*): .* for .*process $2 on " \
    "$3" $((1000 * limit_s + 2000))
}
# told_by_others TEXT RANK: and by no one else. A process that is alone on its node knows
# only signs of life of the other nodes, so each of those that wait may speak before the end.
told_by_others() {
  local lines told
  lines=$(grep -c '^syncbn: no progress' "$(log_of "$job")")
  told=$(grep -cE "process [^$2] has waited [0-9.]+ s for (a sign of life from: process $2 on \
login;|some of: .*process $2 on )" \
    "$(log_of "$job")")
  check "$1: by one of the others, or each: $lines" test "$lines" = "$told" -a "$told" -ge 1 \
    -a "$told" -le 3
  check "$1: exit code 86, once" test "$(grep -c 'exit code 86, no' "$(log_of "$job")")" = 1
  check "$1: and one restart" test "$(grep -c ': restart ' "$(log_of "$job")")" = 1
}
# What is there of a job: processes, its script's among them, and files. Of a step that is
# killed with its node empty folders of Slurm's stay, and for a while its daemon.
left() {
  $job_processes
  find /tmp /dev/shm -mindepth 1
  find "$slurm/tmp" ! -type d
}
nothing_left() { [ -z "$(left)" ]; }
# nothing_stays TEXT
nothing_stays() {
  if wait_for 5 nothing_left; then pass "$1"; else fail "$1: $(left | xargs)"; fi
}

submit slurm-srun.sbatch "${long[@]}" --stall-limit $limit_s
check 'a job whose process will stand still is under way' wait_for 60 whole_job
since=${EPOCHREALTIME/./}
kill -STOP "$(process_with SLURM_PROCID=2)"
ends_in_good_time stopped 2 "$since"
done_well 'a process is stopped, and the job starts again'
told_by_others stopped 2
check 'stopped: on as many nodes' grep -q 'restart 1 of 2, processes: 4, ' "$(log_of "$job")"
check 'stopped: the weights of one process' same long "slurm-$job"
nothing_stays 'nothing is left on the nodes'

# Without a restart nothing is left either. One process a node: several would take those of
# another virtual node for their neighbours.
for launcher in srun mpirun; do
  job=$(sbatch --parsable --nodes=4 --ntasks-per-node=1 --output=syncbn-once-%j.txt \
    --wrap="exec launch/run --launcher $launcher build/syncbn train ${train[*]} \
--epochs 100000000 --stall-limit $limit_s --out out/slurm-\$SLURM_JOB_ID")
  check "a job by $launcher without restarts is under way" wait_for 60 whole_job
  variable=SLURM_PROCID
  if [ $launcher = mpirun ]; then variable=OMPI_COMM_WORLD_RANK; fi
  since=${EPOCHREALTIME/./}
  kill -STOP "$(process_with $variable=3)"
  ends_in_good_time "stopped, $launcher" 3 "$since"
  check "$launcher: the job is over" wait_for 150 over
  nothing_stays "$launcher: nothing is left without a restart"
done

# lose_node NAME SIGNAL: of KILL Slurm finds no trace; of STOP nobody gets an answer
lose_node() {
  local pid parent children=()
  # Slurm's own first, which would tell of the others' end
  mapfile -t gone < <(pgrep -f "^slurmd -N $1 ")
  for pid in /proc/[0-9]*; do
    grep -qsz "^SLURMD_NODENAME=$1\$" "$pid/environ" || continue
    children+=("${pid#/proc/}")
    read -r _ _ _ parent _ <"$pid/stat"
    if [ "$(cat "/proc/$parent/comm")" = slurmstepd ]; then gone+=("$parent"); fi
  done
  gone+=("${children[@]}")
  kill -s "$2" "${gone[@]}" 2>/dev/null
}
# return_node NAME: it starts anew
return_node() {
  kill -9 "${gone[@]}" 2>/dev/null
  slurmd -N "$1" -f $SLURM_CONF
  check "$1 is back" wait_for 30 nodes_idle 4
}
submit slurm-srun.sbatch "${long[@]}" --stall-limit $limit_s
check 'a job to lose a node is under way' wait_for 60 whole_job
since=${EPOCHREALTIME/./}
lose_node n4 STOP
ends_in_good_time node 3 "$since"
restarted() { grep -q 'restart 1 of 2, processes: 3, ' "$(log_of "$job")"; }
check 'a node is lost: the job goes on with the others' wait_for 150 restarted
told_by_others node 3
check 'node: told which' grep -q 'lost: n4$' "$(log_of "$job")"
sed -i 's/^KillWait/SlurmdTimeout=5\n&/' $SLURM_CONF
scontrol reconfigure
done_well 'and ends'
check 'node: the weights of one process' same long "slurm-$job"
return_node n4

# The same by mpirun, which Slurm starts on the nodes.
submit slurm-mpirun.sbatch "${long[@]}" --stall-limit $limit_s
check 'a job by mpirun to lose a node is under way' wait_for 60 whole_job
since=${EPOCHREALTIME/./}
lose_node n4 STOP
ends_in_good_time 'node, mpirun' 3 "$since"
check 'mpirun: the job goes on with the others' wait_for 150 restarted
told_by_others mpirun 3
check 'mpirun: told which' grep -q 'lost: n4$' "$(log_of "$job")"
done_well 'mpirun: and ends'
check 'mpirun: the weights of one process' same long "slurm-$job"
return_node n4

submit slurm-preempt.sbatch "${long[@]}"
check 'a job to lose its first node is under way' wait_for 60 whole_job
lose_node n1 KILL
check 'the node of the script is lost: it is in the queue again' wait_for 150 waits_again
return_node n1
start_again
done_well 'started again, it ends'
check 'first node: the weights of one process' same long "slurm-$job"
nothing_stays 'nothing is left when nodes were lost'
if [ $failed != 0 ]; then
  for file in ./syncbn*.txt $slurm/log/slurmctld.log; do show "$file"; done
fi
finish

# shellcheck shell=bash
# Signals to launch/run. Sourced before all else, so that it hears them from its start on.

# $child runs, $builder builds it; before $begun, $early is the signal that asked to stop.
child='' builder='' begun=no early=''
# Of what runs: whether it saves when asked to. What it was asked, and how often by USR1.
# shellcheck disable=SC2034 # for the script that sources this
saves=no stopped=no heard='' usr1s=0 pending=''

# shellcheck disable=SC2034,SC2317 # likewise; reached through trap
pass_on() {
  local signal=$1 before=$heard
  if [ $begun = no ]; then
    end_build
    case $signal in
      TERM | USR1) early=${early:-$signal} ;;
      *) end_by "$signal" ;;
    esac
    return
  fi
  case $signal in
    INT) # a Ctrl-C of the terminal reaches mpirun without us
      stopped=yes
      return
      ;;
    TERM) stopped=yes ;;
    USR1) if [ "$saves" = yes ]; then stopped=yes; fi ;;
  esac
  if [ "$saves" = yes ] && [ "$signal" != USR2 ]; then
    heard+=" $signal"
    case $before in
      '') signal=USR1 ;; # to TERM mpirun would leave one second to save
      *"$signal"*) ;;    # the second of its kind does not wait
      *) return ;;       # it is saving already
    esac
  fi
  if [ -n "$child" ]; then tell "$signal"; else pending=$signal; fi
}
for signal in INT TERM USR1 USR2; do
  # shellcheck disable=SC2064
  trap "pass_on $signal" "$signal"
done

# tell SIGNAL: to what runs. Until that has taken the place of our own child, which knows our
# traps, a signal to it is lost.
tell() {
  local i
  for ((i = 0; i < 100; i++)); do
    cmp -s "/proc/$child/cmdline" "/proc/$$/cmdline" || break
    sleep 0.01
  done
  if kill -s "$1" "$child" 2>/dev/null && [ "$1" = USR1 ]; then usr1s=$((usr1s + 1)); fi
}

# end_by SIGNAL: as if it had not been heard
end_by() {
  trap - "$1"
  kill -s "$1" $$
}

# The builder itself would tell of a failure.
end_build() {
  local pids
  [ -n "$builder" ] || return 0
  mapfile -t pids < <(descendants "$builder")
  kill -9 "$builder"
  kill "${pids[@]}"
  wait "$builder"
} 2>/dev/null
descendants() {
  local pid
  # shellcheck disable=SC2013 # words
  for pid in $(cat "/proc/$1/task/"*/children); do
    say "$pid"
    descendants "$pid"
  done
}

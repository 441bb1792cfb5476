# shellcheck shell=bash disable=SC2154 # variables are those of the sourcing script
# What an exit code means, and whether starting again can help.

# meaning CODE: in words, of the codes of syncbn
meaning() {
  case $1 in
    64) say 'bad usage: mend the command' ;;
    65) say 'bad data or checkpoint: mend the file that is named' ;;
    70) say 'internal error, or memory that changed by itself' ;;
    74) say 'cannot read or write: look at the disk, its space and permissions' ;;
    75) say 'stopped on request and saved: go on with --resume' ;;
    77) say 'loss or statistics are not finite: look at the data and the rate' ;;
    78) say 'the processes disagree: give all one program, command and data set' ;;
    86) say 'no progress: a process stood still, or its host or link was lost' ;;
  esac
}

# explain CODE: one line about an end that was not good
explain() {
  local code=$1 text='' signal
  if [ "$code" -gt 128 ] && signal=$(kill -l "$code" 2>/dev/null); then
    text="a process of $name was killed by signal $((code - 128)), SIG$signal"
    if [ "$signal" = KILL ]; then text+=' (out of memory? the kernel log tells)'; fi
  elif [ "$code" = 9 ] && [ "$place" != alone ]; then
    text='exit code 9: a process or its host was lost'
  elif [ "$ours" = yes ]; then
    text=$(meaning "$code")
    if [ -n "$text" ]; then
      text="exit code $code, $text"
    elif [ "$place" != alone ]; then
      text="exit code $code, of the launcher: a host or process was lost, or could not start"
    elif [ "$code" = 1 ] && [ "$launcher" = mpirun ]; then
      # Not a code of the program: mpirun failed, and --quiet swallowed why.
      text="mpirun failed; to see why, run it without --quiet ($me --dry-run)"
    fi
  fi
  if [ -n "$text" ]; then warn "$text"; fi
}

# restartable CODE: another start may fare better. What ended by the user's will, or will
# happen again, is left alone.
restartable() {
  case $1 in
    0 | 64 | 65 | 69 | 74 | 75 | 77 | 78 | 126 | 127) return 1 ;;
  esac
}

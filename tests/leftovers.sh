#!/usr/bin/env bash
# The last test: whatever ran before it, no process, no shared memory and no file is left.
# Arguments: the build folder. SBN_TEST_SCRATCH, which launch/test sets, names the folder for
# temporary files that the tests were given, and its namesake in /dev/shm.
set -u

build=$(realpath "$1") scratch=${SBN_TEST_SCRATCH-}
if [ -z "$scratch" ]; then
  echo "skipped: only launch/test gives the tests a folder for temporary files of their own"
  exit 77
fi

# Programs of the build folder, and whatever works in the tests' folders.
processes() {
  local process
  for process in /proc/[0-9]*; do
    case $(readlink "$process/exe" 2>/dev/null),$(readlink "$process/cwd" 2>/dev/null) in
      "$build"/*,* | *,"$scratch"/*) tr '\0' ' ' 2>/dev/null <"$process/cmdline" && echo ;;
    esac
  done
}

# The launcher's last act may be a moment late.
while
  running=$(processes)
  [ -n "$running" ] && [ $SECONDS -lt 5 ]
do sleep 0.1; done
# The folder that MPI's lie in is launch/test's.
files=$(find "$scratch" "/dev/shm/${scratch##*/}" -mindepth 1 \
  ! -path "$scratch/ompi.*.$(id -u)" ! -path "$scratch/ompi.*/stays" 2>/dev/null | head -n 20)

passed=0 failed=0
# nothing WHAT LIST
nothing() {
  if [ -z "$2" ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'FAILED  %s left behind:\n%s\n' "$1" "$2"
  fi
}
nothing processes "$running"
nothing files "$files"
echo "$passed passed, $failed failed"
exit $((failed > 0))

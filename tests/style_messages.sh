#!/usr/bin/env bash
# test_messages counts what communicates; a call that its counter does not know would
# travel unseen. So every MPI call of the library is either counted or listed as local.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/style_lib.sh"

# Calls that send nothing, or wait for what was counted when it began.
local=' Comm_rank Comm_size Comm_set_errhandler Comm_test_inter Error_string Finalized
 Get_library_version Initialized Iprobe Is_thread_main Query_thread Test Wait '
local=${local//$'\n'/ }
counted=$(grep -oE '(int MPI_|^OTHER\()[A-Z][a-z_]*' tests/support/count_mpi.c |
  sed -E 's/.*(MPI_|\()//')

seen=0
while IFS=: read -r file line call; do
  call=${call#MPI_}
  seen=$((seen + 1))
  case $local in *" ${call%(} "*) continue ;; esac
  if ! grep -qx "${call%(}" <<<"$counted"; then
    fault "$file:$line" "MPI_${call%(} is not counted by tests/support/count_mpi.c"
  fi
done < <(tree_files | grep -E '^src/comm/.*\.[ch]$' |
  xargs grep -HnoE '\bMPI_[A-Z][A-Za-z_]*\(')

if [ $seen = 0 ]; then fault tests/style_messages.sh 'found no MPI call to look at'; fi
finish

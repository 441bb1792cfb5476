#!/usr/bin/env bash
# The tests of kernels pass under emulation of another processor, and what the kernels put
# out there has the bits that it has here. Left out is only what libm has a part in.
# Usage: same_bits.sh MPIRUN QEMU THERE... HERE..., as many programs here as there
set -u

if [ $# = 0 ]; then
  echo 'skipped: no cross compiler or emulator for aarch64 (Debian: gcc-aarch64-linux-gnu,'
  echo 'libc6-dev-arm64-cross, qemu-user)'
  exit 77
fi
mpirun=$1 qemu=$2
shift 2
count=$(($# / 2))
there=("${@:1:count}") here=("${@:count+1}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

faults=0
for ((i = 0; i < count; i++)); do
  name=$(basename "${here[i]}")
  SBN_TEST_DIGESTS=$scratch/here "$mpirun" -np 1 "${here[i]}" >"$scratch/log" 2>&1 || {
    cat "$scratch/log"
    echo "$name fails here"
    exit 1
  }
  if ! SBN_TEST_DIGESTS=$scratch/there "$qemu" "${there[i]}"; then
    echo "$name fails under emulation"
    faults=$((faults + 1))
  fi
done
if ! diff "$scratch/here" "$scratch/there"; then
  echo 'the bits differ: < here, > under emulation'
  faults=$((faults + 1))
fi
# Equal for want of anything to compare would be no result.
if [ "$(grep -c 'kernels, type' "$scratch/here")" -lt 6 ]; then
  echo "only these digests were taken:"
  cat "$scratch/here"
  faults=$((faults + 1))
fi
exit $((faults > 0))

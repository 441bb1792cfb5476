#!/usr/bin/env bash
# Each header compiles alone, and twice: a public one as C11 and C++, which a user's
# program may be; an internal one as C11.
# Usage: style_headers.sh [C-COMPILER [C++-COMPILER]], each a command that may have arguments
set -u
. "$(dirname "${BASH_SOURCE[0]}")/style_lib.sh"

read -ra cc <<<"${1:-cc}"
read -ra cxx <<<"${2:-c++}"
warnings=(-Wall -Wextra -Wpedantic -Werror)
read -ra mpi <<<"$(pkg-config --cflags ompi-c 2>/dev/null || pkg-config --cflags mpich)"

# compile HEADER AS-WHAT COMPILER...
compile() {
  local header=$1 what=$2 output
  shift 2
  output=$(printf '#include "%s"\n' "$header" "$header" |
    "$@" -fsyntax-only "${warnings[@]}" "${mpi[@]}" -Iinclude - 2>&1) && return
  fault "$header" "does not compile alone as $what:"
  head -n 12 <<<"$output"
}

# Public headers see no more than a user's program: strict C11, no internal folder.
mapfile -t public < <(tree_files | sed -n 's,^include/\(.*\.h\)$,\1,p')
for header in "${public[@]}"; do
  compile "$header" C11 "${cc[@]}" -xc -std=c11
done
if command -v "${cxx[0]}" >/dev/null; then
  # Open MPI's retired C++ interface is not ours to check.
  for header in "${public[@]}"; do
    compile "$header" C++ "${cxx[@]}" -xc++ -std=c++11 -DOMPI_SKIP_MPICXX -DMPICH_SKIP_MPICXX
  done
fi

# A *_tmpl.h is a part of a template, complete only with the macros of its build.
mapfile -t internal < <(tree_files | sed -n 's,^src/\([^/]*/.*\.h\)$,\1,p' |
  grep -v '_tmpl\.h$')
for header in "${internal[@]}"; do
  compile "$header" C11 "${cc[@]}" -xc -std=c11 -D_POSIX_C_SOURCE=200809L -Wno-psabi \
    -Wno-unused-function -Isrc
done

if [ ${#public[@]} = 0 ] || [ ${#internal[@]} = 0 ]; then
  fault tests/style_headers.sh 'found no headers to compile'
fi
finish

#!/usr/bin/env bash
# The time of day may be set back at any moment; what is measured or waited for goes by the
# monotonic clock alone.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/style_lib.sh"

seen=0
while IFS=: read -r file line text; do
  seen=$((seen + 1))
  [[ $text == *CLOCK_MONOTONIC* ]] && continue
  fault "$file:$line" "reads a clock that may be set: ${text#"${text%%[! ]*}"}"
done < <(tree_files | grep -E '^(src|include)/.*\.[ch]$' | xargs grep -HnE \
  'CLOCK_REALTIME|\b(gettimeofday|clock_gettime|ftime|timespec_get|MPI_Wtime|clock|time) ?\(' |
  grep -vE ':[0-9]+: *(/?\*|//)')

if [ $seen = 0 ]; then fault tests/style_clock.sh 'found no clock to look at'; fi
finish

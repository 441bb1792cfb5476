#!/usr/bin/env bash
# What the tree holds: known names at the top, files of a readable length, no marks of
# unfinished work, nothing that only exists on one machine.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/style_lib.sh"

longest=450
mapfile -t files < <(tree_files)
if [ ${#files[@]} = 0 ]; then fault . 'found no files to look at'; fi

for top in $(printf '%s\n' "${files[@]}" | cut -d/ -f1 | sort -u); do
  case $top in
    .* | meson.build | meson_options.txt | README.md) ;;
    include | src | tests | examples | launch) ;;
    *) fault "$top" 'does not belong at the top level' ;;
  esac
done

for file in "${files[@]}"; do
  case $file in
    src/*.[ch] | include/*.h | tests/*.[ch])
      lines=$(wc -l <"$file")
      if [ "$lines" -gt $longest ]; then
        fault "$file" "has $lines lines, at most $longest are readable"
      fi
      ;;
  esac
done

# find_text PATTERN TEXT PATHS-PATTERN: the brackets in the patterns keep this file from
# finding itself.
find_text() {
  while IFS= read -r hit; do
    fault "$(cut -d: -f1,2 <<<"$hit")" "$2: $(cut -d: -f3- <<<"$hit")"
  done < <(printf '%s\n' "${files[@]}" | grep -E "$3" | tr '\n' '\0' |
    xargs -0 -r grep -HnIE -e "$1")
}
find_text '\b(TO[D]O|FIX[M]E)\b' 'unfinished' '^(src|include|tests|examples|launch|\.ci|[^/]*$)'
find_text '(^|[^[:alnum:]_.$}])/(ho[m]e|ro[o]t|Us[e]rs)/' 'a home folder' .
find_text 'https?:/[/]' 'a script that needs a host' '^(launch/|\.ci/|tests/.*\.sh$)|meson.build$'

finish

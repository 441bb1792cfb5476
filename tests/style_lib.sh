# shellcheck shell=bash
# What the style tests share. Sourced by a script that set -u.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
faults=0

# fault PLACE TEXT
fault() {
  printf '%s: %s\n' "$1" "$2"
  faults=$((faults + 1))
}

finish() {
  if [ $faults -gt 0 ]; then printf '%d faults\n' "$faults"; fi
  exit $((faults > 0))
}

# The project's files, sorted, one a line: as git sees them where there is a repository
# here, new ones included; else all but what the build and the runs leave.
tree_files() {
  if [ "$(git rev-parse --show-toplevel 2>/dev/null)" = "$root" ]; then
    git ls-files --cached --others --exclude-standard
  else
    find . -path './build*' -prune -o -path './out*' -prune -o -path ./.git -prune -o \
      -type f -print | sed 's,^\./,,'
  fi | sort | while IFS= read -r file; do
    # A file deleted but not yet removed from the index is no longer there to look at.
    if [ -e "$file" ]; then printf '%s\n' "$file"; fi
  done
}

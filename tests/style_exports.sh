#!/usr/bin/env bash
# The shared library exports the public functions, all of them and nothing else.
# Usage: style_exports.sh LIBRARY
set -u
library=$(realpath "${1:?usage: style_exports.sh LIBRARY}")
. "$(dirname "${BASH_SOURCE[0]}")/style_lib.sh"

exported=$(nm -D --defined-only -- "$library" | awk '{print $NF}' | sed 's/@.*//' | sort -u)
if [ -z "$exported" ]; then fault "$library" 'exports nothing'; fi

for name in $exported; do
  case $name in sbn_*) ;; *) fault "$library" "exports $name, which is not sbn_*" ;; esac
done

# Comments and preprocessor lines out, one line per file, then the name before each
# parenthesis (or, for a variable, before the semicolon) that follows SBN_API.
declared=$(find include -name '*.h' -exec sed -E 's,//.*,,; /^[[:space:]]*#/d' {} + |
  tr '\n' ' ' | sed -E 's,/\*([^*]|\*+[^*/])*\*+/, ,g' |
  grep -oE '\bSBN_API\b[^;(]*' | grep -oE '[A-Za-z_][A-Za-z_0-9]*[][0-9[:space:]]*$' |
  grep -oE '^[A-Za-z_0-9]+' | sort -u)
if [ -z "$declared" ]; then fault include 'declares no SBN_API function'; fi

while IFS= read -r name; do
  fault include "SBN_API $name is declared, but not exported by ${library##*/}"
done < <(comm -23 <(printf '%s\n' "$declared") <(printf '%s\n' "$exported"))
while IFS= read -r name; do
  case $name in
    sbn_*) fault "${library##*/}" "exports $name, which no public header declares" ;;
  esac
done < <(comm -13 <(printf '%s\n' "$declared") <(printf '%s\n' "$exported"))

finish

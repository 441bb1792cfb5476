#!/usr/bin/env bash
# Includes go left only: a layer sees the layers before it and nothing else. The table
# below is the law; system headers that tie a file to a library have their own homes.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/style_lib.sh"

declare -A may_include=(
  [core]='core'
  [kernels]='core kernels'
  [comm]='core comm'
  [norm]='core kernels comm norm'
  [nn]='core kernels comm norm nn'
  [optim]='core kernels optim'
  [data]='core data'
  [train]='core kernels comm norm nn optim data train'
  [options]='core kernels comm norm nn optim data train options'
  [study]='core kernels comm norm nn optim data train options study'
  [cli]='core kernels comm norm nn optim data train options study cli'
  [examples]='core kernels comm norm nn optim data train options study cli'
)

# The layer that a public header describes.
declare -A layer_of_header=(
  [status]=core [tensor]=core [group]=comm [watch]=comm [norm]=norm [groupnorm]=norm
  [layer]=nn [loss]=nn [model]=nn
  [optim]=optim [data]=data [trainer]=train [state]=train
)

# Layer of a path below src/ or include/; nothing for a path of neither.
layer_of() {
  case $1 in
    syncbn.h) echo train ;;
    syncbn/*.h)
      local noun=${1#syncbn/}
      echo "${layer_of_header[${noun%.h}]-unknown}"
      ;;
    */*) echo "${may_include[${1%%/*}]+${1%%/*}}" ;;
  esac
}

home_of() {
  case $1 in
    mpi.h) echo 'include/syncbn/group.h src/comm/* src/cli/main.c tests/* examples/*' ;;
    *mmintrin.h | x86intrin.h | arm_neon.h | arm_sve.h) echo 'src/kernels/*' ;;
    cblas.h) echo 'src/kernels/gemm.c' ;;
    *) echo '*' ;;
  esac
}

check_include() {
  local file=$1 line=$2 quote=${3%%[!\"<]*} header=${3#?} layer target pattern at_home=no
  local -a home
  set -f # the patterns are for [[ ]], not for the folder we stand in
  read -ra home <<<"$(home_of "$header")"
  set +f
  for pattern in "${home[@]}"; do
    # shellcheck disable=SC2053 # a pattern on the right is what is wanted
    if [[ $file == $pattern ]]; then at_home=yes; fi
  done
  if [ $at_home = no ]; then
    fault "$file:$line" "includes $header, which is only for: ${home[*]}"
  fi

  case $file in
    include/syncbn.h | tests/*) return ;;
    examples/*) layer=examples ;;
    include/*) layer=$(layer_of "${file#include/}") ;;
    *) layer=$(layer_of "${file#src/}") ;;
  esac
  case $layer in
    '' | unknown)
      fault "$file:$line" "belongs to no layer that tests/style_includes.sh knows"
      return
      ;;
  esac
  target=$(layer_of "$header")
  if [ "$quote" = '"' ]; then
    case $file:$target:$header in
      include/*:*:syncbn/* | src/*:?*:*/* | examples/*:?*:* | examples/*::example.h) ;;
      *)
        # A name that no file has is made by the build.
        if [ -e "${file%/*}/$header" ] || [[ $file == include/* || $header == */* ]]; then
          fault "$file:$line" "\"$header\": expected a path from include/ or src/"
        fi
        return
        ;;
    esac
  fi
  case $target in
    '') ;;
    unknown) fault "$file:$line" "$header: give it a layer in tests/style_includes.sh" ;;
    *)
      case " ${may_include[$layer]} " in *" $target "*) return ;; esac
      fault "$file:$line" "$layer may not include $header ($target)"
      ;;
  esac
}

seen=0
while IFS=: read -r file line header; do
  check_include "$file" "$line" "$header"
  seen=$((seen + 1))
done < <(tree_files | grep -E '^(src|include|examples|tests)/.*\.[ch]$' |
  xargs grep -HnoE '^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"][^>"]+' |
  sed -E 's/:[^:]*([<"])/:\1/')

# Reaching MPI through a header that includes it is no way around the rule.
while IFS=: read -r file line call; do
  fault "$file:$line" "calls $call): MPI is for src/comm/ and main"
done < <(tree_files | grep -E '^src/.*\.c$' | grep -vE '^src/(comm/|cli/main\.c$)' |
  xargs -r grep -HnoE '\bMPI_[A-Z][A-Za-z_]*\(')

if [ $seen = 0 ]; then fault tests/style_includes.sh 'found no #include to look at'; fi
finish

#!/usr/bin/env bash
# The folder of a run: a damaged checkpoint gives way to the one before it, a second run is
# kept out, a crash leaves nothing behind that stays, and a disk that is full or read-only
# ends the run without harm to what was saved.
# shellcheck disable=SC2317 # functions are called by name
set -u
. "$(dirname "$0")/program_lib.sh"

mkdir data
"$make_idx" data 150 40 || exit 1
train=(train --data data --progress none --batch 60 --checkpoint-every 5)
newest=checkpoint.safetensors previous=checkpoint-previous.safetensors

# --- damaged checkpoints ------------------------------------------------------

must 2 "${train[@]}" --steps 40 --out whole
must 3 "${train[@]}" --steps 20 --out kept
check 'the checkpoint before the last one stays' test -s kept/$previous

# flip FILE OFFSET: another bit there
flip() {
  local byte
  byte=$(od -An -tu1 -j "$2" -N 1 "$1")
  put_bytes "$1" "$2" "\\$(printf '%o' $((byte ^ 4)))"
}
cut_to() { truncate -s $(($(size_of "$1") * $2 / 16)) "$1"; }
flip_at() { flip "$1" $(($(size_of "$1") * $2 / 16)); }
zeros() { dd if=/dev/zero of="$1" bs=64 count=3 seek=9 conv=notrunc status=none; }
empty() { : >"$1"; }
gone() { rm "$1"; }
steps_of() { grep '"kind":"step"' "$1/metrics.jsonl"; }
same_end() {
  cmp whole/model.safetensors "$1/model.safetensors" && diff <(steps_of whole) <(steps_of "$1")
}
one_line() { test "$(grep -c "$1" stderr.txt)" = 1 -a "$(wc -l <stderr.txt)" = 1; }

# falls_back DAMAGE [ARGUMENT]: to step 15, says so, and ends as undisturbed
falls_back() {
  rm -rf run
  cp -r kept run
  "$1" run/$newest ${2+"$2"}
  works "$* of the newest checkpoint: goes on" 2 "${train[@]}" --steps 40 --resume --out run ||
    return
  check "$*: one line says from where" \
    one_line "^syncbn: run/$newest.*; going on from $previous, step 15$"
  check "$*: ends as undisturbed" same_end run
  check "$*: what is damaged is kept apart" test "$1" = gone -o -e run/checkpoint-damaged.safetensors
}
falls_back cut_to 15
falls_back flip_at 8
falls_back flip_at 0
falls_back zeros
falls_back empty
falls_back gone

flip_at kept/$newest 12
cp -r kept run-1
flip_at run-1/$previous 9
refused 'both damaged' 65 "$newest is damaged: .*; nor is there another.*$previous" \
  4 "${train[@]}" --steps 40 --resume --out run-1
rm kept/$previous
refused 'the only one damaged' 65 "$newest is damaged: tensor .* differs from its digest" \
  4 "${train[@]}" --steps 40 --resume --out kept
run 1 inspect kept/$newest
check 'a look at it tells, behind what it holds' test "$code" = 65 -a -s stdout.txt
cp -r whole flipped
flip_at flipped/model.safetensors 11
refused 'weights damaged' 65 'model.safetensors is damaged: tensor' 2 eval flipped --data data

# --- two runs, one folder -----------------------------------------------------

endless=("${train[@]}" --steps 100000000)
has_checkpoint() { test -s "$1/$newest"; }
# begin NP FOLDER: a run under way, with a checkpoint; its job goes by a name
begin() {
  rm -f pid.*
  # shellcheck disable=SC2016 # for the inner shell
  "$mpirun" "${quiet[@]}" -np "$1" env PBS_JOBID=77.server sh -c \
    'echo $$ >"pid.${OMPI_COMM_WORLD_RANK:-$PMI_RANK}" && exec "$@"' sh \
    "$program" "${endless[@]}" --out "$2" >job.txt 2>&1 </dev/null &
  job=$!
  wait_for $((60 * slowness)) has_checkpoint "$2"
}
begin 2 shared
holder="process $(cat pid.0) on host $(uname -n), job 77.server, since "
refused 'a second run in the folder' 74 "shared is in use by another run: $holder" \
  2 "${train[@]}" --steps 40 --out shared
refused 'a resuming one' 74 "shared/. is in use by another run: $holder" \
  3 "${train[@]}" --steps 40 --resume --out shared/.
must 1 "${train[@]}" --steps 5 --out other
check 'another folder is free' test -s other/model.safetensors
must 1 inspect shared/$newest && pass 'and anybody may look'
kill -USR1 "$(cat pid.1)"
end_of_job
check 'the first goes on unharmed to its stop' test "$code" = 75
check 'and gives the folder back' absent shared/run.lock

begin 3 killed
kill -9 "$(cat pid.0)"
end_of_job
check 'a killed run leaves its lock' test -s killed/run.lock
run 2 "${train[@]}" --steps 100000000 --resume --out killed --max-time 0.001
check 'which does not hold' test "$code" = 75
for text in '' 'no lock of ours' '{"host":"elsewhere","boot":"x","pid":1,"start":1,"job":""}'; do
  printf '%s' "$text" >killed/run.lock
  run 2 "${train[@]}" --steps 100000000 --resume --out killed --max-time 0.001
  check "nor does one that says '$text'" test "$code" = 75
done
check 'and none is left' absent killed/run.lock

for file in $newest $previous metrics.jsonl run.json model.safetensors; do
  : >"killed/$file.tmp-4194305"
done
run 2 "${train[@]}" --steps 100000000 --resume --out killed --max-time 0.001
check 'temporaries of dead processes are removed' \
  test "$(cd killed && echo *.tmp-*)" = '*.tmp-*'

# a launcher's second start of a run whose first died early: an earlier run's results are not its
must 1 "${train[@]}" --steps 10 --seed 5 --out named
id=(env SBN_RUN_ID=a)
mpi -np 2 "${id[@]}" "$program" "${train[@]}" --steps 15 --resume --out named
check 'a checkpoint of another run is not gone on from' test "$code" = 0 -a ! -s stderr.txt
check 'but put aside' test -s named/checkpoint-old.safetensors
check 'and its metrics' test "$(field step <(steps_of named) | head -n 1)" = 1
cp named/checkpoint-old.safetensors old.safetensors
mpi -np 1 "${id[@]}" "$program" "${train[@]}" --steps 15 --resume --out named
check 'its own is' test "$code" = 0 -a -s named/$newest
check 'and none is put aside' cmp old.safetensors named/checkpoint-old.safetensors
run 3 "${train[@]}" --steps 15 --seed 5 --resume --out named
check 'and one without a name goes on from any: other settings, 65' test "$code" = 65

# --- no room, no permission ---------------------------------------------------

if [ "$(id -u)" != 0 ] || ! mkdir disk || ! mount -t tmpfs -o size=4k tmpfs disk 2>/dev/null; then
  skip 'a full and a read-only disk: they need root, and leave to mount'
  finish
fi
unmount() {
  umount -l disk 2>/dev/null
  clean_up
}
trap unmount EXIT
# A net whose files are of some pages each, so that few sizes of the disk meet every write.
printf '%s\n' 'input 1x28x28' 'conv c out=2 kernel=5' 'norm n' 'relu' 'maxpool size=12' \
  'linear d out=10' 'logsoftmax' >tiny.net
tiny=(train --data data --progress none --batch 60 --net tiny.net)
must 1 "${tiny[@]}" --steps 12 --checkpoint-every 2 --out tiny
# pages of a folder of ours, its own included
pages=$(($(find tiny -type f -printf '%s\n' | awk '{ n += int(($1 + 4095) / 4096) } END { print n }') + 12))
# trained_in_room ROOM PATTERN: in disk/$ROOM, or one clear end that harms nothing; counted in
# $enough, $full
trained_in_room() {
  local room=$1 problem= left
  run 2 "${tiny[@]}" --steps 12 --checkpoint-every 2 --out "disk/$room"
  if [ "$code" = 0 ]; then
    enough=$((enough + 1))
    return
  fi
  full=$((full + 1))
  [ "$code" = 74 ] || problem=", exit code $code"
  one_line "^syncbn: .*$2" || problem="$problem, $(cat stderr.txt)"
  left=$(find disk -name '*.tmp-*' -o -name '*.lock')
  [ -z "$left" ] || problem="$problem, $left"
  # what was saved before is whole, and goes on where there is room
  cp -r "disk/$room" "roomy-$room"
  must 2 "${tiny[@]}" --steps 12 --checkpoint-every 2 --resume --out "roomy-$room" ||
    problem="$problem, resume"
  [ -s stderr.txt ] && problem="$problem, $(cat stderr.txt)"
  cmp tiny/model.safetensors "roomy-$room/model.safetensors" || problem="$problem, other weights"
  check "a room of $room is full: 74, no temporary, no harm$problem" test -z "$problem"
}
full=0 enough=0
for ((size = 1; size <= pages && enough < 2; size++)); do
  umount disk
  mount -t tmpfs -o size=$((4 * size))k tmpfs disk || break
  trained_in_room "$size-pages" 'No space left on device'
done
check "disks too small ($full) and large enough ($enough)" test $full -ge 5 -a $enough -ge 1

# A study: its lists, trials, tables, pictures and report meet the end of the disk in turn.
# shellcheck disable=SC2054 # commas belong to the values
study=(study grid --data data --net tiny.net --vary lr=0.05,0.1 --seeds 2 --batch 60 --epochs 1)
must 2 "${study[@]}" --out study
mapfile -t reported < <(cd study && find . -maxdepth 1 -type f ! -name claims ! -name times.csv)
# whole FOLDER: each file of the report that it has
whole() {
  local file
  for file in "${reported[@]}"; do
    [ ! -e "$1/$file" ] || cmp "study/$file" "$1/$file" || return
  done
}
same_study() { whole "$1" && [ -s "$1/report.md" ] && diff <(ls study) <(ls "$1"); }
last_words() { grep -v -e '^study grid: ' -e '^ *[0-9]*/4  ' stderr.txt; }
full=0
for ((size = 1; size <= 60; size += 2)); do
  umount disk
  mount -t tmpfs -o size=$((4 * size))k tmpfs disk || break
  run 2 "${study[@]}" --out disk/study
  [ "$code" = 0 ] && break
  full=$((full + 1))
  problem=
  [ "$code" = 74 ] || problem=", exit code $code"
  [ "$(last_words | wc -l)" = 1 ] && last_words | grep -q '^syncbn: .*No space left on device' ||
    problem="$problem, $(last_words)"
  left=$(find disk -name '*.tmp-*' -o -name '*.lock')
  [ -z "$left" ] || problem="$problem, $left"
  whole disk/study || problem="$problem, a torn file"
  # the same command, when there is room again
  mount -o remount,size=4m disk
  must 1 "${study[@]}" --out disk/study || problem="$problem, goes on"
  same_study disk/study || problem="$problem, another report"
  check "a study on a disk of $size pages: 74, nothing torn, goes on$problem" test -z "$problem"
done
check "disks too small ($full), and one large enough for a study" test $full -ge 8 -a "$code" = 0
check 'with the same report' same_study disk/study
told() { [ "$code" = 74 ] && [ "$(last_words | wc -l)" = 1 ] && has "$1" stderr.txt; }
"$program" "${study[@]}" --out study 2>stderr.txt >/dev/full
code=$?
check 'a study that cannot print' told '^syncbn: cannot write to standard output'

# an evaluation
works 'weights with precise statistics' 2 eval tiny --data data --precise-stats all --save precise
umount disk
mount -t tmpfs -o size=4k tmpfs disk
echo earlier >disk/precise
save=(eval tiny --data data --precise-stats all --save disk/precise)
refused 'no room for weights' 74 'cannot write disk/precise: No space left on device' 2 "${save[@]}"
check 'what was there stays, alone' test "$(ls disk) $(cat disk/precise)" = 'precise earlier'
mount -o remount,size=4m disk
works 'weights where there is room again' 2 "${save[@]}"
check 'are the same' cmp precise disk/precise
if command -v gnuplot >/dev/null; then
  mount -o remount,size=12k disk
  picture=(bench norm --shape 16x3 --pairs 1 --plot disk/it.svg)
  run 1 "${picture[@]}"
  check 'no room for a picture' told '^syncbn: .*cannot write disk/it.svg: No space left on device'
  check 'nor half a picture' absent disk/it.svg
  mount -o remount,size=4m disk
  works 'a picture where there is room again' 1 "${picture[@]}"
fi
"$program" eval tiny --data data 2>stderr.txt >/dev/full
code=$?
check 'an evaluation that cannot print' told '^syncbn: cannot write to standard output'

umount disk
mount -t tmpfs -o size=4m tmpfs disk
must 2 "${tiny[@]}" --steps 6 --checkpoint-every 2 --out disk/run
cp -r disk/run before
mount -o remount,ro disk
refused 'a read-only folder' 74 'disk/run/run.lock: Read-only file system' \
  3 "${tiny[@]}" --steps 12 --resume --out disk/run
refused 'a new folder there' 74 'disk/new: Read-only file system' 2 "${tiny[@]}" --steps 12 --out disk/new
check 'nothing changed' diff -r before disk/run
umount disk

# --- a quota ------------------------------------------------------------------

: >mount.txt
quotas() {
  truncate -s 120M quotas && mkfs.btrfs -q quotas && mount -o loop quotas disk &&
    btrfs -q quota enable disk
}
if ! command -v mkfs.btrfs >/dev/null || ! quotas >/dev/null 2>mount.txt; then
  skip "a quota: it needs btrfs-progs and a loop device: $(xargs <mount.txt)"
else
  full=0 enough=0
  # the folder of a subvolume alone takes 16 KiB
  for ((size = 16; size <= 400 && enough < 1; size += 24)); do
    btrfs -q subvolume create "disk/$size-KiB" && btrfs -q qgroup limit ${size}K "disk/$size-KiB"
    trained_in_room "$size-KiB" 'Disk quota exceeded'
  done
  check "quotas too small ($full) and large enough ($enough)" test $full -ge 5 -a $enough = 1
fi
umount disk 2>/dev/null

# --- a file that the disk cannot give ------------------------------------------

: >mount.txt
# the list of a file's blocks lies in a block of its own, where it can be damaged
image() {
  truncate -s 16M image && mkfs.ext2 -q -F -b 1024 image && mount -o loop image disk
}
if ! command -v mkfs.ext2 >/dev/null || ! command -v debugfs >/dev/null || ! image 2>mount.txt; then
  skip "blocks that cannot be read: they need e2fsprogs and a loop device: $(xargs <mount.txt)"
  finish
fi
cp -r whole disk/run
inode=$(stat -c %i disk/run/$newest)
umount disk
block=$(debugfs -R "stat <$inode>" image 2>/dev/null | grep -o '(IND):[0-9]*' | head -n 1 | cut -d: -f2)
# the thirteenth block of 1024 bytes and its followers are nowhere
printf '\377%.0s' {1..64} | dd of=image bs=1024 seek="$block" conv=notrunc status=none
mount -o loop image disk
lost='cannot read byte [0-9]* of [0-9]*: [SI]'
refused 'weights that the disk cannot give' 65 "$lost" \
  2 eval --weights disk/run/$newest --net cnn --data data
works 'a checkpoint that the disk cannot give' 2 "${train[@]}" --steps 40 --resume --out disk/run &&
  check 'one line says from where it goes on' one_line "$lost.*; going on from $previous, step 35"
check 'and it ends as undisturbed' same_end disk/run
umount disk
finish

#!/usr/bin/env bash
# Bad input at four processes: one line that says what is wrong, the right exit code, and
# nobody left waiting.
# shellcheck disable=SC2317 # functions are called by name
set -u
. "$(dirname "$0")/program_lib.sh"

mkdir data
"$make_idx" data 150 40 || exit 1
small=(--batch 60 --steps 6 --progress none)
train=(train --data data "${small[@]}")

# usage CODE-64 rows: TEXT PATTERN ARGUMENT...
usage() { refused "$1" 64 "$2" 4 "${@:3}"; }
usage 'no command' 'expected a command'
SBN_SUMS=shared usage 'unknown way of sums' 'SBN_SUMS: expected memory, or mpi' "${train[@]}"
SBN_ISA=sse9 usage 'unknown instruction set' 'SBN_ISA: expected base' "${train[@]}"
usage 'unknown command' '"trian"' trian
usage 'unknown option' 'unknown option --bacth' train --bacth 60
usage 'unknown letter' 'unknown option -x' train -xyz
usage 'option that could be several' 'several options begin with --l' train --l 3
usage 'missing value' 'missing after --batch' "${train[@]}" --batch
usage 'value for a flag' '--resume=no' "${train[@]}" --resume=no
usage 'stray argument' '"data2"' "${train[@]}" data2
usage 'stray argument after --' '"data2"' "${train[@]}" -- data2
usage 'two files to evaluate' '"b"' eval a b
usage 'nothing to evaluate' 'expected a weights file' eval
usage 'nothing to inspect' 'expected what to inspect' inspect
usage 'empty folder name' '--data: expected' train --data ''
usage 'batch 0' '--batch: expected a whole number from 1' "${train[@]}" --batch 0
usage 'batch -1' '--batch: .*"-1"' "${train[@]}" --batch -1
usage 'batch 6o' '--batch: .*"6o"' "${train[@]}" --batch 6o
usage 'batch 1.5' '--batch: .*"1.5"' "${train[@]}" --batch=1.5
usage 'batch beyond 64 bits' '--batch: ' "${train[@]}" --batch 9223372036854775808
usage 'batch above the data set' '1 to 150 training samples, got 151' \
  "${train[@]}" --batch 151
usage 'batch above the limit' '1 to 50 training samples' "${train[@]}" --limit-train 50
usage 'batch of one' 'no variance' "${train[@]}" --batch 1
usage 'limit 0' '--limit-train: ' "${train[@]}" --limit-train 0
usage 'norm-batch 0' '--norm-batch: .* from 1 or all, got "0"' "${train[@]}" --norm-batch 0
usage 'norm-batch above the batch' 'norm batch 1 to batch 60, got 61' \
  "${train[@]}" --norm-batch 61
usage 'norm-batch word' '--norm-batch: .*"most"' "${train[@]}" --norm-batch most
usage 'norm-batch that leaves one alone' 'no variance' "${train[@]}" --norm-batch 59
usage 'last batch of one sample' 'drop the last batch' \
  train --data data --limit-train 121 --batch 60 --epochs 9 --net mlp
usage 'classes 0' '--classes: expected a whole number from 1' "${train[@]}" --classes 0
usage 'classes that do not divide the batch' 'divides the 60 samples of a norm batch, got 7' \
  "${train[@]}" --classes 7
usage 'classes that do not divide the norm batch' 'divides the 16 samples.*got 3' \
  "${train[@]}" --norm-batch 16 --classes 3
usage 'classes that do not divide the last norm batch' 'the 8 samples left .* got 13' \
  "${train[@]}" --norm-batch 26 --classes 13
usage 'more classes than there are' '1 to 10 classes, .* got 12' "${train[@]}" --classes 12
usage 'shift of unknown kind' 'shift: expected contrast:X.*"sepia:1"' \
  "${train[@]}" --shift blur:1,sepia:1
usage 'shift without amount' 'contrast:AMOUNT .* 0 to 100, got "contrast"' \
  "${train[@]}" --shift contrast
usage 'shift to evaluate with' 'invert:AMOUNT .* 0 to 1, got "invert:3"' \
  eval none.safetensors --data data --shift invert:3
usage 'augmentation beyond the image' 'shift of 0 to 27 pixels' "${train[@]}" --augment-shift 28
usage 'half of no statistics' '--precise-from: expected --precise-stats' \
  eval none.safetensors --data data --precise-from test
usage 'negative rate' '--lr: ' "${train[@]}" --lr -0.1
usage 'rate that is no number' '--lr: .*"nan"' "${train[@]}" --lr nan
usage 'infinite rate' '--lr: .*"inf"' "${train[@]}" --lr inf
usage 'momentum above 1' '--momentum: expected a number from 0 to 1' "${train[@]}" --momentum 1.5
usage 'epsilon 0' '--norm-eps: ' "${train[@]}" --norm-eps 0
usage 'norm-momentum above 1' '--norm-momentum: .* 0 to 1 or none' "${train[@]}" --norm-momentum 2
usage 'seed text' '--seed: .*"one"' "${train[@]}" --seed one
usage 'seed -1' '--seed: .*"-1"' "${train[@]}" --seed -1
usage 'steps 0' '--steps: ' "${train[@]}" --steps 0
usage 'epochs and steps' 'got both' "${train[@]}" --epochs 1
usage 'epochs beyond counting' 'too many' \
  train --data data --batch 60 --epochs 9223372036854775807
usage 'unknown schedule' 'constant|step|cosine' "${train[@]}" --schedule linear
usage 'unknown norm' '--norm: .*batch|renorm|group:G|none.*"layer"' "${train[@]}" --norm layer
usage 'group norm without groups' '--norm: .*"group"' "${train[@]}" --norm group
usage 'no groups' '--norm: .*"group:0"' "${train[@]}" --norm group:0
usage 'groups that do not divide' \
  'cnn:7:1: norm conv2_bn: expected groups that divide its 20 channels, got 3' \
  "${train[@]}" --norm group:3
usage 'groups of one value' 'mlp:.*dense1_bn: 100 groups .* no variance' \
  "${train[@]}" --net mlp --norm group:100
usage 'r-max below 1' '--renorm-r-max: .* from 1, got "0.5"' \
  "${train[@]}" --norm renorm --renorm-r-max 0.5
usage 'd-max below 0' '--renorm-d-max: .*"-1"' "${train[@]}" --norm renorm --renorm-d-max -1
usage 'r open before the warm-up ends' "warm-up's step 5000 or later, got r at 10" \
  "${train[@]}" --norm renorm --renorm-r-steps 10
usage 'd open before the warm-up ends' 'got r at 40000 and d at 4999' \
  "${train[@]}" --norm renorm --renorm-d-steps 4999
usage 'unknown net' 'article, cnn, mlp' "${train[@]}" --net resnet50
usage 'missing .net file' 'none.net' "${train[@]}" --net none.net

# bad_data TEXT PATTERN: with the folder bad/; nothing else is printed, no weights appear
bad_data() { refused "$1" 65 "$2" 4 train --data bad "${small[@]}" --out bad-out; }
fresh() {
  rm -rf bad
  cp -r data bad
}
images=bad/train-images-idx3-ubyte labels=bad/train-labels-idx1-ubyte
refused 'missing folder' 65 'nowhere is no folder' 4 train --data nowhere "${small[@]}"
refused 'a file for a folder' 65 'is no folder' \
  4 train --data data/t10k-labels-idx1-ubyte "${small[@]}"
mkdir empty
refused 'folder without files' 65 'train-images-idx3-ubyte' 4 train --data empty "${small[@]}"
fresh && rm bad/t10k-labels-idx1-ubyte
bad_data 'no test labels' 't10k-labels'
fresh && rm $images && mkdir $images
refused 'folder in the place of a file' 74 'got a folder' 4 train --data bad "${small[@]}"
fresh && rm $images && mkfifo $images
refused 'pipe in the place of a file' 74 'regular file' 4 train --data bad "${small[@]}"
fresh && : >$images
bad_data 'empty file' 'truncated'
fresh && put_bytes $images 2 '\11'
bad_data 'wrong magic' 'expected magic 0x00000803'
fresh && cp $labels $images
bad_data 'labels in the place of images' 'expected magic'
fresh && put_bytes $labels 100 '\12'
bad_data 'label out of range' 'labels of 0 to 9, got 10 for sample 92'
fresh && put_bytes bad/t10k-labels-idx1-ubyte 8 '\377'
bad_data 'test label out of range' 'got 255 for sample 0'
fresh && cp data/t10k-labels-idx1-ubyte $labels
bad_data 'images and labels differ in number' '150 images and 40 labels'
fresh && truncate -s -1 $images
bad_data 'truncated images' 'truncated'
fresh && printf x >>$images
bad_data 'trailing byte' 'got more'
fresh && put_bytes $images 4 '\377\377\377\377'
bad_data 'four billion images' 'truncated or damaged'
fresh && put_bytes $images 4 '\0\0\0\0'
bad_data 'no images' 'at least one'
fresh && put_bytes $images 8 '\0\0\0\0'
bad_data 'images without height' 'sides of 1 to'

packed() {
  fresh
  gzip $images $labels
}
packed && truncate -s -100 $images.gz
bad_data 'truncated gzip' 'truncated'
packed && truncate -s 5 $images.gz
bad_data 'gzip of five bytes' 'truncated'
packed && put_bytes $images.gz 3000 '\377\377\377\377\377\377\377\377'
bad_data 'flipped bytes in gzip' 'get the file again'
packed && put_bytes $images.gz $(($(size_of $images.gz) - 8)) '\1\2\3\4'
bad_data 'wrong checksum of gzip' 'incorrect data check'
packed && put_bytes $images.gz $(($(size_of $images.gz) - 4)) '\1\2\3\4'
bad_data 'wrong length in gzip' 'incorrect length check'
packed && truncate -s -2 $labels.gz
bad_data 'gzip without its last bytes' 'truncated'
packed && printf x >>$images.gz
bad_data 'bytes after gzip' 'foreign bytes'
packed && gzip -c $images.gz >twice && mv twice $images.gz
bad_data 'gzip in gzip' 'expected magic'

# CIFAR-10's files
mkdir cifar && "$make_idx" --cifar cifar 60 20 || exit 1
cifar=(train --data cifar10:badcifar --net cnn-cifar --batch 20 --steps 2 --progress none)
bad_cifar() { refused "$1" 65 "$2" 4 "${cifar[@]}" --out bad-out; }
fresh_cifar() {
  rm -rf badcifar
  cp -r cifar badcifar
}
bad_cifar 'no CIFAR folder' 'badcifar is no folder.*cifar-10-binary.tar.gz'
fresh_cifar && rm badcifar/data_batch_4.bin
bad_cifar 'a CIFAR file is missing' 'expected data_batch_4.bin there'
fresh_cifar && rm badcifar/test_batch.bin
bad_cifar 'no CIFAR test file' 'expected test_batch.bin'
fresh_cifar && truncate -s -1 badcifar/data_batch_5.bin
bad_cifar 'truncated CIFAR file' 'data_batch_5.bin: expected CIFAR-10 records of 3073 bytes'
fresh_cifar && printf x >>badcifar/test_batch.bin
bad_cifar 'trailing byte in a CIFAR file' 'test_batch.bin: expected CIFAR-10 records'
fresh_cifar && : >badcifar/data_batch_1.bin
bad_cifar 'empty CIFAR file' 'got 0 bytes'
fresh_cifar && put_bytes badcifar/data_batch_2.bin $((3073 * 11)) '\12'
bad_cifar 'CIFAR label out of range' 'data_batch_2.bin: .*got 10 in record 11'
fresh_cifar && gzip -c badcifar/data_batch_3.bin >packed.bin && mv packed.bin badcifar/data_batch_3.bin
bad_cifar 'packed CIFAR file' 'packed or not the binary version'
usage 'CIFAR-10 without a folder' 'expected cifar10:FOLDER' train --data cifar10 "${small[@]}"
refused 'a CIFAR folder alone' 65 '--data cifar10:FOLDER' 4 train --data cifar "${small[@]}"
usage 'net of other images than CIFAR-10' \
  '1x28x28, the data set has 3x32x32; nets that come along for these: cnn-cifar' \
  train --data cifar10:cifar "${small[@]}" --net cnn
usage 'CIFAR net of other images' 'come along for these: article, cnn, mlp' \
  "${train[@]}" --net cnn-cifar

# bad_net TEXT PATTERN LINES
bad_net() {
  # shellcheck disable=SC2059 # the lines are a format on purpose
  printf "$3" >bad.net
  refused "$1" 65 "$2" 4 "${train[@]}" --net bad.net
}
bad_net 'malformed net' 'bad.net:2:14: ' 'input 1x28x28\nconv c out=4 krenel=3\n'
bad_net 'net with an unknown layer' 'bad.net:2:1: unknown layer "cnov"' \
  'input 1x28x28\ncnov c out=4 kernel=3\n'
bad_net 'net without an end' 'bad.net:3:1: expected logsoftmax' \
  'input 1x28x28\nlinear d out=10\n'
bad_net 'empty net' 'bad.net:1:1: ' ''
bad_net 'kernel larger than the image' 'bad.net:2:' \
  'input 1x28x28\nconv c out=4 kernel=29\nlinear d out=10\nlogsoftmax\n'
bad_net 'net with a NUL byte' 'bad.net' 'input 1x28x28\n\0linear d out=10\nlogsoftmax\n'
bad_net 'net too large for memory' 'bad.net:3:' \
  'input 1x28x28\nlinear a out=65536\nconv b out=65536 kernel=65536\nlogsoftmax\n'
bad_net 'comment that is not UTF-8' 'bad.net:1: ' \
  '# gr\374n\ninput 1x28x28\nlinear d out=10\nlogsoftmax\n'
printf 'input 1x20x20\nlinear d out=10\nlogsoftmax\n' >other.net
usage 'net of another image size' '1x20x20, the data set has 1x28x28' \
  "${train[@]}" --net other.net
printf 'input 1x28x28\nlinear d out=7\nlogsoftmax\n' >other.net
usage 'net of another number of classes' '7 outputs, the data set has 10' \
  "${train[@]}" --net other.net
mkdir folder.net
refused 'folder for a net' 74 'folder.net' 4 "${train[@]}" --net folder.net

finish

#!/usr/bin/env bash
# syncbn bench: its cases, its JSON lines, comparison with an earlier run, the picture, and
# what it refuses. Nothing here depends on how fast anything is.
# shellcheck disable=SC2317 # functions are called by name
set -u
. "$(dirname "$0")/program_lib.sh"

if ! command -v python3 >/dev/null; then
  skip 'JSON: no python3'
  finish
fi

# judge TEXT WHAT PYTHON: of the lines in stdout.txt, as the list `cases`; fails by assert.
# Keys, order of percentiles and doubles are judged before.
judge() {
  local text=$1
  if python3 - "$2" stdout.txt 2>judge.txt <<END_OF_PYTHON; then
import json, math, sys
what = sys.argv[1]
common = "kind what pass layout dtype shape isa seconds"
keys = {
    "norm": common + " memcpy_seconds ratio ratio_p10 ratio_p90 threads fused pairs",
    "sync": common + " local_seconds allreduce_seconds ratio ratio_p10 ratio_p90 bytes"
            " np threads pairs",
    "train": "kind what net batch isa seconds images_per_s images_per_s_p10"
             " images_per_s_p90 step_flops peak_flops_per_s peak_fraction"
             " peak_fraction_p10 peak_fraction_p90 np threads blocks",
}[what].split()
def unique(pairs):
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)
def load(path):
    return [json.loads(line, object_pairs_hook=unique) for line in open(path)]
measured = ("seconds", "ratio", "then", "speedup", "images", "peak", "efficiency")
def name(case):
    return json.dumps({k: v for k, v in case.items()
                       if not any(m in k for m in measured)}, sort_keys=True)
cases = load(sys.argv[2])
assert cases, "no case"
for c in cases:
    more = [k for k in ("mean",) if k in c]
    if c.get("what") == "norm" and c["threads"] > 1:
        more += ["speedup", "speedup_p10", "speedup_p90"]
    if c.get("what") == "train" and c["np"] > 1:
        more = [k + p for k in ("efficiency", "efficiency_apart", "overlap") for p in ("", "_p10", "_p90")]
    assert [k for k in c if k != "then"] == keys + more, list(c)
    assert c["kind"] == "bench" and c["what"] == what
    assert all(math.isfinite(v) for v in c.values() if isinstance(v, (int, float))), c
    for k in list(c):
        if k + "_p10" in c:
            assert c[k + "_p10"] <= c[k] <= c[k + "_p90"], (k, c)
        if k.endswith("seconds"):
            assert 0 < c[k] < 60, c
assert len(set(map(name, cases))) == len(cases), "a case came twice"
$3
END_OF_PYTHON
    pass "$text"
  else
    fail "$text"
    tail -n 1 judge.txt
    show_output
  fi
}

norm=(bench norm --pairs 5)
must 1 "${norm[@]}" --json --shape 4x3x5x6,40x7,4x3x5x6 --dtype all --threads 1,2 &&
  judge 'norm: every case once, its ratio that of its seconds' norm '
expected = {(p, l, d, t, tuple(s)) for d in ("f32", "f64", "bf16") for t in (1, 2)
            for p in ("forward", "backward")
            for l, s in (("nchw", (4, 3, 5, 6)), ("nhwc", (4, 3, 5, 6)), ("nc", (40, 7)))}
found = {(c["pass"], c["layout"], c["dtype"], c["threads"], tuple(c["shape"])) for c in cases}
assert found == expected, found ^ expected
for c in cases:
    # a median of ratios and a ratio of medians: far apart only where one is wrong
    assert 1 / 20 < c["ratio"] / (c["seconds"] / c["memcpy_seconds"]) < 20, c
    assert c["ratio"] > 0 and c["fused"] == "none" and c["pairs"] == 5'
must 1 "${norm[@]}" --json --shape 4x3x5x6 --layout nhwc --pass backward --relu --add &&
  judge 'norm: one chosen case, with relu and add' norm '
assert len(cases) == 1 and cases[0]["fused"] == "add+relu"
assert cases[0]["pass"] == "backward" and cases[0]["layout"] == "nhwc"'
must 1 bench norm --json --pairs 1 --shape 40x7 --mean -4 --pass forward &&
  judge 'norm: x with a mean' norm '
assert [c["mean"] for c in cases] == [-4]'
must 1 bench norm --json --pairs 1 --shapes nets --pass forward &&
  judge 'norm: shapes of the nets' norm '
assert [64, 20, 8, 8] in [c["shape"] for c in cases] and len(cases) == 8'
must 1 "${norm[@]}" --json --shape 40x7 --pass forward --isa base &&
  judge 'norm: the base kernels when asked for' norm '
assert [c["isa"] for c in cases] == ["base"]'
must 1 "${norm[@]}" --json --shape 40x7 --pass forward --isa all &&
  judge 'norm: all instruction sets' norm '
assert "base" in [c["isa"] for c in cases]'
export SBN_ISA=base
must 1 "${norm[@]}" --json --shape 40x7 --pass forward &&
  judge 'norm: the environment chooses too' norm 'assert cases[0]["isa"] == "base"'
unset SBN_ISA
must 2 "${norm[@]}" --json --shape 40x7 --pass forward &&
  judge 'norm at np=2: one process measures' norm 'assert len(cases) == 1'

must 1 "${norm[@]}" --shape 40x7 &&
  check 'norm: the table begins with the machine' test "$(head -n 1 stdout.txt |
    grep -cE '[0-9]+ cores, (base|avx2|avx512); .*syncbn [0-9.]+ ')" = 1
check 'norm: and has a row a case' test "$(grep -cE '^(forward|backward) +nc +f32 .* 40x7 ' \
  stdout.txt)" = 2

# comparison
must 1 "${norm[@]}" --json --shape 4x3x5x6,40x7 --threads 1,2 && cp stdout.txt then.jsonl
must 1 "${norm[@]}" --json --shape 4x3x5x6,40x7 --threads 1,2 --compare then.jsonl &&
  judge 'compared with a run of the same cases: all match, the ratio is that of seconds' norm '
then = {name(c): c["seconds"] for c in load("then.jsonl")}
for c in cases:
    assert abs(c["then"] / (c["seconds"] / then[name(c)]) - 1) < 1e-6, c'
sed -E '1s/"seconds":[^,]*/"seconds":3600/; $d' then.jsonl >doctored.jsonl
must 1 "${norm[@]}" --json --shape 4x3x5x6,40x7 --threads 1,2 --compare doctored.jsonl &&
  judge 'compared with a doctored file: its ratio, and what is new' norm '
then = {name(c): c["seconds"] for c in load("doctored.jsonl")}
assert sorted(then.values())[-1] == 3600 and len(then) == len(cases) - 1
for c in cases:
    if name(c) in then:
        assert abs(c["then"] / (c["seconds"] / then[name(c)]) - 1) < 1e-6, c
    else:
        assert c["then"] == "new", c
assert [c["then"] for c in cases].count("new") == 1
assert min(c["then"] for c in cases if c["then"] != "new") < 1e-3'
must 1 "${norm[@]}" --shape 40x7 --compare doctored.jsonl --pass forward --relu &&
  check 'a case that the file has not got, in the table' has ' new$' stdout.txt
# alone TEXT CODE PATTERN ARGUMENT...: as refused, without mpirun, which takes its time to end
# a job that fails
alone() {
  local text=$1 expected=$2 pattern=$3
  shift 3
  code=0
  timeout -k 10 "$refusal_s" "$program" "$@" >stdout.txt 2>stderr.txt </dev/null || code=$?
  judge_refusal
}
bad_file() { alone "compare: $1" "$2" "$3" "${norm[@]}" --shape 40x7 --compare bad.jsonl; }
cp then.jsonl bad.jsonl && sed -i '2s/}$//' bad.jsonl
refused 'compare: damaged file, at np=2' 65 'bad.jsonl:2: ' 2 "${norm[@]}" --shape 40x7 \
  --compare bad.jsonl
cp then.jsonl bad.jsonl && sed -i '3s/"kind":"bench"/"kind":"step"/' bad.jsonl
bad_file 'lines of something else' 65 'bad.jsonl:3: expected a line of syncbn bench'
cp then.jsonl bad.jsonl && sed -i '1s/"seconds":[^,]*/"seconds":"1"/' bad.jsonl
bad_file 'seconds that are no number' 65 'bad.jsonl:1: '
: >bad.jsonl
bad_file 'empty file' 65 'is empty'
printf '\0\377' >bad.jsonl
bad_file 'bytes that are no text' 65 'bad.jsonl:1: '
rm bad.jsonl
bad_file 'missing file' 74 'cannot open bad.jsonl'

# the picture
if command -v gnuplot >/dev/null; then
  must 1 "${norm[@]}" --shape 40x7,4x3x5x6,16x3 --json --plot "it's.svg" &&
    check 'plot: a picture' has '</svg>' "it's.svg"
  check 'plot: of both passes' has 'backward nhwc' "it's.svg"
  alone 'plot: a folder that is not there' 74 'cannot create nowhere/a.svg.*: No such file' \
    "${norm[@]}" --shape 40x7 --plot nowhere/a.svg
  mkdir folder.svg
  alone 'plot: a folder' 74 'cannot replace folder.svg: Is a directory' \
    "${norm[@]}" --shape 40x7 --plot folder.svg
else
  skip 'plot: no gnuplot'
fi
mpi -np 1 env PATH=/nonexistent "$program" "${norm[@]}" --shape 40x7 --plot none.svg
check 'plot: without gnuplot all but the picture' test "$code" = 0 -a \
  "$(grep -c ' 40x7 ' stdout.txt)" = 2
check 'plot: and a word on how to get it' has 'gnuplot-nox' stderr.txt
check 'plot: and no file' absent none.svg

# sync
sync=(bench sync --pairs 3 "--channels=5,20")
must 2 "${sync[@]}" --json --shape 8,4x3x3 &&
  judge 'sync: every case once' sync '
expected = {(p, l, tuple(s)) for p in ("forward", "backward")
            for l, s in (("nc", (8, 5)), ("nc", (8, 20)), ("nchw", (4, 5, 3, 3)),
                         ("nchw", (4, 20, 3, 3)))}
found = {(c["pass"], c["layout"], tuple(c["shape"])) for c in cases}
assert found == expected, found ^ expected
for c in cases:
    assert c["np"] == 2 and c["bytes"] % 8 == 0 and c["bytes"] >= 16 * c["shape"][1], c'
cp stdout.txt then.jsonl
must 3 "${sync[@]}" --json --dtype f64 --pass forward --isa base --compare then.jsonl &&
  judge 'sync at np=3' sync '
assert len(cases) == 2
for c in cases:
    assert c["np"] == 3 and c["dtype"] == "f64" and c["isa"] == "base"
    assert c["then"] == "new"'
must 2 "${sync[@]}" &&
  check 'sync: a table' test "$(grep -cE '^(forward|backward) +nc .* 32x(5|20) ' stdout.txt)" = 4
alone 'sync at np=1' 64 'expected 2 processes or more, got 1' bench sync

# train
must 2 bench train --net mlp,cnn,mlp --batch 64 --blocks 3 --json &&
  judge 'train: every case once, its products counted' train '
# of each layer y and dW, and dx behind the first
flops = {"mlp": 64 * 2 * (2 * 78400 + 3 * (10000 + 10000 + 1000)),
         "cnn": 64 * 2 * (2 * 144000 + 3 * (320000 + 16000 + 500))}
assert {c["net"]: c["step_flops"] for c in cases} == flops
for c in cases:
    assert c["np"] == 2 and c["batch"] == 64 and len(cases) == 2
    assert abs(c["images_per_s"] * c["seconds"] / 64 - 1) < 1e-6, c
    assert 0.05 < c["peak_fraction"] / (c["step_flops"] / c["seconds"] /
                                        c["peak_flops_per_s"]) < 20, c
    assert all(0.02 < c[k] < 5 for k in ("efficiency", "efficiency_apart", "overlap")), c'
cp stdout.txt then.jsonl
must 2 bench train --net cnn --batch 64,32 --blocks 1 --json --compare then.jsonl &&
  judge 'train: compared' train '
then = {c["net"]: c["seconds"] for c in load("then.jsonl")}
assert [c["batch"] for c in cases] == [64, 32] and cases[1]["then"] == "new"
assert abs(cases[0]["then"] / (cases[0]["seconds"] / then["cnn"]) - 1) < 1e-6, cases'
must 1 bench train --net mlp --batch 32 --blocks 1 &&
  check 'train: a table' test "$(grep -cE '^mlp +32 ' stdout.txt)" = 1

# what it refuses
usage() { alone "$1" 64 "$2" "${@:3}"; }
refused 'unknown pass, at np=2' 64 '--pass: .*"back"' 2 bench norm --pass back
refused 'unknown net, at np=2' 64 'article, cnn, mlp' 2 bench train --net cnn,resnet50
usage 'nothing to measure' 'expected what to measure' bench
usage 'something else to measure' 'cannot measure "nrom"' bench nrom
usage 'unknown option' 'unknown option --shpae' bench norm --shpae 40x7
usage 'shape of letters' '--shape: .*"axb"' bench norm --shape axb
usage 'shape without a size' '--shape: .*"32x"' bench norm --shape 32x
usage 'shape of size 0' '--shape: .*"0x3"' bench norm --shape 40x7,0x3
usage 'shape of one size' '--shape: .*"32"' bench norm --shape 32
usage 'shape of three sizes' 'three sizes' bench norm --shape 4x4x4
usage 'shape of five sizes' '--shape: .*"1x2x3x4x5"' bench norm --shape 1x2x3x4x5
usage 'shape without a variance' 'no variance' bench norm --shape 1x5
usage 'shape beyond memory' 'too many' bench norm --shape 2000000000x2000000000
usage 'shape and shapes' 'got both' bench norm --shape 40x7 --shapes nets
usage 'unknown shapes' '--shapes: .*"vgg"' bench norm --shapes vgg
usage 'unknown layout' '--layout: .*nchw, nhwc, nc.*"nwhc"' bench norm --layout nwhc
usage 'layout that fits no shape' 'fits none' bench norm --shape 40x7 --layout nchw
usage 'unknown type' '--dtype: .*"f16"' bench norm --dtype f32,f16
usage 'threads 0' '--threads: .*"0"' bench norm --threads 1,0
usage 'unknown instruction set' '--isa: .*base.*"sse9"' bench norm --isa sse9
usage 'pairs 0' '--pairs: ' bench norm --pairs 0
usage 'too many pairs' '--pairs: .*1000' bench norm --pairs 1001
usage 'picture of another kind' 'ends in .svg' bench norm --plot a.png
usage 'sync: unknown instruction set' '--isa: .*"sse9"' bench sync --isa sse9
usage 'sync: channels 0' '--channels: .*"0"' bench sync --channels 0
usage 'sync: two sizes' 'two sizes' bench sync --shape 4x4
usage 'train: batch of one' '--batch: .* from 2' bench train --batch 1
printf 'input 1x20x20\nlinear d out=10\nlogsoftmax\n' >other.net
usage 'train: net of another image size' '28x28' bench train --net other.net

for subject in norm sync train; do
  must 1 bench $subject --help &&
    check "bench $subject --help" has "^Usage: syncbn bench $subject" stdout.txt
done
must 1 bench --help && check 'bench --help' has '^  train ' stdout.txt

finish

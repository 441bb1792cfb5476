#!/usr/bin/python3
"""Tables, or with --plot a gnuplot script, of what scaling.sh simulated.

usage: table.py [--plot] RUNS.jsonl IMAGE_US
"""
import json
import sys

STRONG = 16384  # samples of a batch that more and more processes share


def step(run, sums, batch):
    """Seconds of a step: (computing, norm messages, gradient messages)."""
    slices = -(-batch // 16)
    compute = -(-slices // run["np"]) * 16 * image_s
    return compute, run[sums]["norm_s"], run[sums]["gradients_s"]


def rows(platform, per_host, algorithm):
    return [r for r in runs if (r["platform"], r["per_host"], r["algorithm"]) ==
            (platform, per_host, algorithm)]


def scaling(platform):
    print(f"\n{platform}, one process a host; ms of a step, exact sums (plain sums)\n")
    print("| np | norm messages | gradient messages | weak: 16 samples a process "
          "| efficiency | share of norm | strong: batch 16384 | speed-up |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for r in rows(platform, 1, "flat"):
        cells = []
        for sums in ("exact", "plain"):
            compute, norm, gradients = step(r, sums, 16 * r["np"])
            weak = compute + norm + gradients
            strong = sum(step(r, sums, STRONG))
            cells.append((f"{1e3 * norm:.3f}", f"{1e3 * gradients:.3f}",
                          f"{1e3 * weak:.3f}", f"{compute / weak:.2f}",
                          f"{100 * norm / weak:.0f} %", f"{1e3 * strong:.2f}",
                          f"{STRONG * image_s / strong:.0f}"))
        print(f"| {r['np']} | " +
              " | ".join(f"{a} ({b})" for a, b in zip(*cells)) + " |")


def compare(platform, per_host, algorithm, name):
    """Open MPI's choice of how to sum against another."""
    chosen, other = rows(platform, per_host, "flat"), rows(platform, per_host, algorithm)
    if not other:
        return
    print(f"\n{platform}, {per_host} process{'es' if per_host > 1 else ''} a host; "
          f"ms of messages in a step, exact sums: Open MPI's choice, {name}\n")
    print("| np | hosts | norm, chosen | norm, other | gradients, chosen "
          "| gradients, other |")
    print("|---:|---:|---:|---:|---:|---:|")
    for c in chosen:
        for o in other:
            if o["np"] != c["np"]:
                continue
            print(f"| {c['np']} | {c['np'] // per_host} | " + " | ".join(
                f"{1e3 * r['exact'][part]:.3f}" for part in ("norm_s", "gradients_s")
                for r in (c, o)) + " |")


def plot():
    print("set terminal svg size 720,420 font 'sans,13' background 'white'\n"
          "set logscale xy 2\nset logscale y 10\nset key left top\n"
          "set xlabel 'processes'\nset ylabel 'ms a step'\nset grid ytics\n"
          "set format y '%g'\nset title 'A step of 16 samples a process, simulated'")
    curves, data = [], []
    for platform, color in zip(platforms, ("#0072b2", "#d55e00", "#009e73")):
        for part, dash in (("norm", 2), ("step", 1)):
            curves.append(f"'-' using 1:2 with linespoints lw 2 pt 7 dt {dash} "
                          f"lc rgb '{color}' title '{platform}: {part}"
                          f"{' messages' if part == 'norm' else ''}'")
            for r in rows(platform, 1, "flat"):
                parts = step(r, "exact", 16 * r["np"])
                value = parts[1] if part == "norm" else sum(parts)
                data.append(f"{r['np']} {1e3 * value:.6f}")
            data.append("e")
    print("plot " + ", ".join(curves))
    print("\n".join(data))


arguments = [a for a in sys.argv[1:] if a != "--plot"]
if len(arguments) != 2:
    sys.exit(__doc__)
with open(arguments[0], encoding="utf-8") as lines:
    runs = [json.loads(line) for line in lines]
image_s = 1e-6 * float(arguments[1])
platforms = list(dict.fromkeys(r["platform"] for r in runs))
if "--plot" in sys.argv:
    plot()
else:
    for each in platforms:
        scaling(each)
        compare(each, 1, "doubling", "recursive doubling")
        compare(each, 32, "levels", "two levels")

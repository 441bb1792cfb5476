#!/usr/bin/env python3
"""Tables of the measurements that compare_norm.sh took.

    python3 tests/bench/norm_table.py out/bench/compare_norm.jsonl

Exits 1 where syncbn is slower than the best peer in its best plain layout, 77 where
there is nothing to compare. Loops with sums in double are no peer: they are counted.
"""

import json
import sys
from collections import defaultdict
from statistics import median

PLAIN = ("nchw", "nhwc", "nc")
NAMES = {
    "onednn": "oneDNN",
    "torch": "PyTorch",
    "loop": "loop",
    "loop64": "loop in double",
}


def shape_name(shape):
    return "×".join(map(str, shape))


def read(lines):
    """cases[shape, pass][who, layout][round] = row; who is None for syncbn."""
    cases = defaultdict(lambda: defaultdict(dict))
    for line in lines:
        row = json.loads(line)
        plain = row.get("dtype", "f32") == "f32" and row.get("fused", "none") == "none"
        if row.get("what") != "norm" or not plain:
            continue
        who = (row["peer"], row["version"]) if "peer" in row else None
        key = tuple(row["shape"]), row["pass"]
        cases[key][who, row["layout"]][row["round"]] = row
    return cases


def middle(rounds, key):
    return median(row[key] for row in rounds.values())


def name_of(who):
    return " ".join((NAMES.get(who[0], who[0]), who[1]))


def spread(values):
    return f"{median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def microseconds(seconds):
    return f"{seconds * 1e6:,.4g}" if seconds < 1e-3 else f"{seconds * 1e6:,.0f}"


def peers_table(cases):
    """Ratio to memcpy of every peer, forward / backward, as the README has it."""
    columns = sorted(
        {(who[0], layout) for rows in cases.values() for who, layout in rows if who},
        key=lambda c: (c[0] != "torch", c[0], PLAIN.index(c[1]) if c[1] in PLAIN else 9),
    )
    if not columns:
        return
    print("Ratio to memcpy of x, forward / backward; the fastest version of each peer.\n")
    print("| shape | " + " | ".join(f"{NAMES[p]} {l}" for p, l in columns) + " |")
    print("|---|" + "---|" * len(columns))
    for shape in dict.fromkeys(shape for shape, _ in cases):
        cells = []
        for peer, layout in columns:
            both = []
            for which in ("forward", "backward"):
                ratios = [
                    middle(rounds, "ratio")
                    for (who, where), rounds in cases.get((shape, which), {}).items()
                    if who and who[0] == peer and where == layout
                ]
                both.append(f"{min(ratios):.2f}" if ratios else "–")
            cells.append(" / ".join(both) if both != ["–", "–"] else "–")
        print(f"| {shape_name(shape)} | " + " | ".join(cells) + " |")
    print()


def versus_table(cases):
    """syncbn against the best peer; returns how many cases were compared, how many lost,
    how many of these to a loop alone, no library being faster, and of those how many to
    one with sums in double as well."""
    compared = lost = to_loop = to_double = 0
    head = False
    for (shape, which), rows in cases.items():
        others = {k: r for k, r in rows.items() if k[0] and k[1] in PLAIN}
        peers = {k: r for k, r in others.items() if k[0][0] != "loop64"}
        doubles = [r for k, r in others.items() if k[0][0] == "loop64"]
        ours = {layout: r for (who, layout), r in rows.items() if who is None}
        if not peers or not ours:
            continue
        if not head:
            head = True
            print("Best peer in its best plain layout against syncbn in each. µs: median")
            print("of rounds; /memcpy: ratio to memcpy of x in turn; time: syncbn's over")
            print("the peer's within a round, median (range) of rounds.\n")
            print(
                "| shape | pass | best peer | µs | /memcpy | syncbn | µs | /memcpy "
                "| time | wins |"
            )
            print("|---|---|---|---:|---:|---|---:|---:|---:|---|")
        best = min(peers, key=lambda k: middle(peers[k], "seconds"))
        peer = peers[best]
        for layout, mine in ours.items():
            times = [
                mine[r]["seconds"] / peer[r]["seconds"] for r in mine if r in peer
            ]
            if not times:
                continue
            compared += 1
            slower = median(times) > 1
            lost += slower
            libraries = [middle(r, "seconds") for k, r in peers.items() if k[0][0] != "loop"]
            alone = slower and middle(mine, "seconds") <= min(libraries, default=9e9)
            to_loop += alone
            wide = min((middle(r, "seconds") for r in doubles), default=9e9)
            to_double += alone and middle(mine, "seconds") > wide
            print(
                f"| {shape_name(shape)} | {which} | {name_of(best[0])}, {best[1]} "
                f"| {microseconds(middle(peer, 'seconds'))} "
                f"| {middle(peer, 'ratio'):.2f} | {layout} "
                f"| {microseconds(middle(mine, 'seconds'))} "
                f"| {middle(mine, 'ratio'):.2f} | {spread(times)} "
                f"| {'**peer**' if slower else 'syncbn'} |"
            )
    return compared, lost, to_loop, to_double


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 64
    with open(sys.argv[1], encoding="utf-8") as file:
        cases = read(file)
    peers_table(cases)
    compared, lost, to_loop, to_double = versus_table(cases)
    if not compared:
        print("Nothing to compare: no case has both syncbn and a peer.")
        return 77
    print(
        f"\n{compared} cases, {lost} lost, {to_loop} of them to a loop alone, "
        f"{to_double} of these to a loop with sums in double as well"
    )
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())

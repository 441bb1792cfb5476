#!/usr/bin/env python3
"""Time PyTorch's batch normalization, training, as users call it; JSON lines.

The result is allocated by each call, as it is for users. Works with PyTorch 1.13 and
later.

    python3 torch_norm.py --shape 64x20x8x8 --layout nhwc --pass backward
"""

import argparse
import ctypes
import json
import os
import sys
import time

SHAPES = [
    (32, 256, 56, 56),
    (32, 64, 56, 56),
    (32, 1024, 14, 14),
    (64, 20, 8, 8),
    (4096, 256),
]
LAYOUTS, PASSES = ["nchw", "nhwc", "nc"], ["forward", "backward"]
SAMPLE_S = 1e-3  # least time of a sample


def quantile(values, q):
    """Between the neighbours of place q·(n-1), as the C peers have it."""
    ordered, at = sorted(values), q * (len(values) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


class Case:
    """One norm and its batch; forward(k) and backward(k) return the seconds of a call."""

    def __init__(self, shape, layout):
        self.layout, self.shape = layout, shape
        kind = torch.nn.BatchNorm1d if layout == "nc" else torch.nn.BatchNorm2d
        self.norm = kind(shape[1])
        g = torch.Generator().manual_seed(1)
        self.x = torch.rand(shape, generator=g) * 2 + 0.5
        self.dy = torch.rand(shape, generator=g) * 2 - 1
        if layout == "nhwc":
            self.x = self.x.contiguous(memory_format=torch.channels_last)
            self.dy = self.dy.contiguous(memory_format=torch.channels_last)
        self.x.requires_grad_()
        self.copy = torch.empty_like(self.x)
        self.bytes = self.x.numel() * 4
        self.inputs = [self.x, self.norm.weight, self.norm.bias]

    def forward(self, k):
        start = time.perf_counter()
        for _ in range(k):
            self.norm(self.x)
        return (time.perf_counter() - start) / k

    def backward(self, k):
        """The gradients that a training step takes; the forward calls are not counted."""
        ys = [self.norm(self.x) for _ in range(k)]
        start = time.perf_counter()
        for y in ys:
            torch.autograd.grad(y, self.inputs, self.dy)
        return (time.perf_counter() - start) / k

    def memcpy(self, k):
        to, source = (ctypes.c_void_p(t.data_ptr()) for t in (self.copy, self.x))
        move, size = ctypes.memmove, ctypes.c_size_t(self.bytes)
        start = time.perf_counter()
        for _ in range(k):
            move(to, source, size)
        return (time.perf_counter() - start) / k


def repeats_of(run):
    """Calls that fill a sample, found after some to warm up."""
    for _ in range(2):
        run(1)
    k = 1
    while k < 1 << 20 and run(k) * k < SAMPLE_S:
        k *= 2
    return k


def check(case):
    """The result is batch normalization in training mode, and in the layout given."""
    y = case.norm(case.x).detach()
    assert y.is_contiguous(
        memory_format=torch.channels_last
        if case.layout == "nhwc"
        else torch.contiguous_format
    )
    for c in (0, case.shape[1] - 1):
        x = case.x.detach()[:, c].double()
        want = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()
        assert (y[:, c].double() - want).abs().max() < 1e-3


def measure(case, which, args):
    run = case.forward if which == "forward" else case.backward
    run_repeats, copy_repeats = repeats_of(run), repeats_of(case.memcpy)
    times, copies = [], []
    for i in range(args.pairs):  # each first in every second pair, as the C peers
        if i % 2:
            copies.append(case.memcpy(copy_repeats))
        times.append(run(run_repeats))
        if i % 2 == 0:
            copies.append(case.memcpy(copy_repeats))
    ratios = [t / c for t, c in zip(times, copies)]
    row = {
        "kind": "bench",
        "what": "norm",
        "peer": "torch",
        "version": torch.__version__.split("+")[0],
        "pass": which,
        "layout": case.layout,
        "dtype": "f32",
        "shape": list(case.shape),
        "threads": args.threads,
        "pairs": args.pairs,
        "seconds": float(f"{quantile(times, 0.5):.9g}"),
        "memcpy_seconds": float(f"{quantile(copies, 0.5):.9g}"),
        "ratio": round(quantile(ratios, 0.5), 4),
        "ratio_p10": round(quantile(ratios, 0.1), 4),
        "ratio_p90": round(quantile(ratios, 0.9), 4),
    }
    print(json.dumps(row, separators=(",", ":")), flush=True)


def shapes(text):
    found = [tuple(map(int, word.split("x"))) for word in text.split(",")]
    for sizes in found:
        if len(sizes) not in (2, 4) or min(sizes) < 1:
            raise argparse.ArgumentTypeError(f"expected NxC or NxCxHxW, got {text}")
    return found


def words(*known):
    def read(text):
        found = text.split(",")
        if not set(found) <= set(known):
            raise argparse.ArgumentTypeError(f"expected some of {known}, got {text}")
        return found

    return read


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number of 1 or more, got {text}")
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--shape", type=shapes, default=SHAPES, metavar="LIST", help="64x20x8x8,4096x256"
    )
    parser.add_argument(
        "--layout",
        type=words(*LAYOUTS),
        default=LAYOUTS,
        metavar="LIST",
        help="of nchw, nhwc (PyTorch's channels_last), nc (all that fit the shape)",
    )
    parser.add_argument(
        "--pass",
        dest="passes",
        type=words(*PASSES),
        default=PASSES,
        metavar="LIST",
        help="of forward, backward (both)",
    )
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--pairs", type=positive, default=20, help="the median counts (20)")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)

    global torch  # after the libraries' threads are set
    try:
        import torch
    except ImportError as error:
        print(f"torch: skipped, {error}", file=sys.stderr)
        return 77
    torch.set_num_threads(args.threads)
    for sizes in args.shape:
        for layout in ["nc"] if len(sizes) == 2 else ["nchw", "nhwc"]:
            if layout not in args.layout:
                continue
            case = Case(sizes, layout)
            check(case)
            for which in args.passes:
                measure(case, which, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())

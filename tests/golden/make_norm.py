#!/usr/bin/env python3
"""Write norm.safetensors beside this script: cases of the batch norm layer.

Every expected value comes from PyTorch in float64 and is confirmed by a two-pass
computation in long double, written out below from Algorithm 1 of Ioffe & Szegedy 2015.
README.md in this folder lists the tensors.
"""

import pathlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

import container

STEPS = 10


@dataclass
class Case:
    shape: tuple
    affine: bool = True
    momentum: float | None = 0.1  # None: plain average over all batches
    eps: float = 1e-5
    dtype: str = "f64"  # of the inputs; expected values are always float64
    offset: float = 0.0  # added to every x: a mean that dwarfs the deviation
    flat: bool = False  # channel 1 is constant: its variance is 0
    track: bool = True  # False: no running statistics, evaluation takes the batch's

    def text(self):
        words = [
            f"shape={'x'.join(map(str, self.shape))}",
            f"affine={int(self.affine)}",
            f"momentum={'none' if self.momentum is None else self.momentum}",
            f"eps={self.eps:g}",
            f"steps={STEPS}",
            f"dtype={self.dtype}",
        ]
        if self.offset:
            words.append(f"offset={self.offset:g}")
        if self.flat:
            words.append("flat=1")
        if not self.track:
            words.append("track=0")
        return " ".join(words)


CASES = [
    Case((13, 4, 3, 5)),
    Case((13, 4, 3, 5), dtype="f32"),
    Case((7, 3)),
    Case((7, 3), affine=False, momentum=None, eps=1e-3, dtype="f32"),
    Case((2, 1, 1, 1)),
    Case((2, 1, 1, 1), momentum=None, dtype="f32"),
    Case((5, 7, 1, 1), affine=False, eps=1e-3),
    Case((5, 7, 1, 1), momentum=None, dtype="f32"),
    Case((40, 3, 2, 2), momentum=None, eps=1e-3),
    Case((40, 3, 2, 2), dtype="f32"),
    Case((33, 5), momentum=1.0, dtype="f32"),
    Case((1, 3, 4, 4), momentum=0.0, dtype="f32"),
    Case((24, 2, 2, 3), dtype="f32", offset=1e4),
    Case((24, 2, 2, 3), offset=1e6),
    Case((6, 2, 2, 2), dtype="f32", flat=True),
    Case((19, 2, 3), momentum=None),
    Case((11, 3, 3), affine=False, dtype="f32"),
    Case((17, 2, 2, 1, 2), affine=False),
    Case((17, 2, 2, 1, 3), momentum=None, dtype="f32"),
    Case((7, 2, 3), dtype="f32", track=False),
]


def inputs(case, rng):
    """x of every step, dy of the last, gamma and beta. Each channel and step has its own
    mean and deviation, so that running statistics of different steps differ."""
    shape, c = case.shape, case.shape[1]
    per_channel = (STEPS, 1, c) + (1,) * (len(shape) - 2)
    x = rng.standard_normal((STEPS,) + shape) * rng.uniform(0.5, 2, per_channel)
    x += rng.normal(0, 1, per_channel) + case.offset
    if case.flat:
        x[:, :, 1] = rng.normal(0, 1, per_channel)[:, :, 1]
    out = {"x": x, "dy": rng.standard_normal(shape)}
    if case.affine:
        out |= {"gamma": rng.uniform(0.5, 1.5, c), "beta": rng.uniform(-1, 1, c)}
    dtype = {"f32": np.float32, "f64": np.float64}[case.dtype]
    return {k: v.astype(dtype) for k, v in out.items()}


def by_torch(case, given, dtype):
    """Forward over all steps, backward of the last, then evaluation of the last x."""
    layer = [nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d][
        len(case.shape) - 2
    ](
        case.shape[1],
        eps=case.eps,
        momentum=case.momentum,
        affine=case.affine,
        track_running_stats=case.track,
        dtype=dtype,
    )
    t = {k: torch.from_numpy(v).to(dtype) for k, v in given.items()}
    if case.affine:
        layer.load_state_dict({"weight": t["gamma"], "bias": t["beta"]}, strict=False)
    for step in range(STEPS):
        x = t["x"][step].clone().requires_grad_(True)
        y = layer(x)
    y.backward(t["dy"])
    out = {"y": y.detach(), "dx": x.grad}
    if case.affine:
        out |= {"dweight": layer.weight.grad, "dbias": layer.bias.grad}
    out |= {k: v.clone() for k, v in layer.named_buffers()}
    layer.eval()
    out["y_eval"] = layer(t["x"][-1]).detach()
    return {
        k: v.numpy() if v.dtype == torch.int64 else v.double().numpy()
        for k, v in out.items()
    }


def by_hand(case, given):
    """The same from the formulas in long double, the variance in a second pass over x."""
    wide = {k: v.astype(np.longdouble) for k, v in given.items()}
    c, axes = case.shape[1], (0,) + tuple(range(2, len(case.shape)))
    n = int(np.prod(case.shape)) // c
    col = (1, c) + (1,) * (len(case.shape) - 2)
    gamma = wide.get("gamma", np.ones(c, np.longdouble)).reshape(col)
    beta = wide.get("beta", np.zeros(c, np.longdouble)).reshape(col)
    running_mean, running_var = np.zeros(c, np.longdouble), np.ones(c, np.longdouble)
    for step, x in enumerate(wide["x"], 1):
        mean = x.sum(axes) / n
        var = ((x - mean.reshape(col)) ** 2).sum(axes) / n
        m = (
            np.longdouble(1) / step
            if case.momentum is None
            else np.longdouble(case.momentum)
        )
        running_mean += m * (mean - running_mean)
        running_var += m * (var * n / (n - 1) - running_var)
    rstd = 1 / np.sqrt(var + np.longdouble(case.eps)).reshape(col)
    xhat, dy = (x - mean.reshape(col)) * rstd, wide["dy"]
    sum_dy, sum_dy_xhat = dy.sum(axes), (dy * xhat).sum(axes)
    dx = (
        gamma
        * rstd
        * (dy - sum_dy.reshape(col) / n - xhat * sum_dy_xhat.reshape(col) / n)
    )
    running = 1 / np.sqrt(running_var + np.longdouble(case.eps)).reshape(col)
    out = {"y": gamma * xhat + beta, "dx": dx}
    out["y_eval"] = out["y"]
    if case.track:
        out |= {
            "running_mean": running_mean,
            "running_var": running_var,
            "num_batches_tracked": np.int64(STEPS),
            "y_eval": gamma * (x - running_mean.reshape(col)) * running + beta,
        }
    if case.affine:
        out |= {"dweight": sum_dy_xhat, "dbias": sum_dy}
    return out, rstd


def scales(case, given, out, rstd):
    """What an error of each value is measured against, per channel where channels differ:
    the terms that were added, as their sum may cancel to nothing (dx of two values does).
    """
    axes = (0,) + tuple(range(2, len(case.shape)))
    x, dy = np.abs(given["x"]), np.abs(given["dy"])
    gamma = np.abs(given["gamma"]) if case.affine else np.ones(case.shape[1])
    gamma = gamma.reshape(rstd.shape)
    scale = {
        "y": 1 + np.abs(out["y"]).max(),
        "y_eval": 1 + np.abs(out["y_eval"]).max(),
        "dx": gamma * rstd * dy.max(axes, keepdims=True),
        "dweight": dy.sum(axes) * (1 + np.abs(out["y"]).max()),
        "dbias": dy.sum(axes),
    }
    if case.track:
        scale |= {
            "running_mean": x.max(),
            "running_var": 1 + np.abs(out["running_var"]).max(),
            "num_batches_tracked": 1,
        }
    return scale


def deviation(got, want, scale):
    """Largest error of each tensor in units of its scale."""
    return {k: float((np.abs(got[k] - want[k]) / scale[k]).max()) for k in want}


def main():
    assert np.finfo(np.longdouble).nmant >= 63, "long double is no wider than double here"
    torch.set_num_threads(1)
    rng = np.random.default_rng(1502)
    tensors, metadata = {}, {
        "torch": torch.__version__.split("+")[0],
        "cases": str(len(CASES)),
    }
    print(f"{'largest error of PyTorch, by the scales above':84s} {'float64':8s} float32")
    for i, case in enumerate(CASES):
        given = inputs(case, rng)
        want = by_torch(case, given, torch.float64)
        hand, rstd = by_hand(case, given)
        assert hand.keys() == want.keys()
        scale = scales(case, given, want, rstd)
        checked = deviation(want, hand, scale)
        # Rounding of the mean weighs |x|·rstd times as much in xhat.
        condition = float(np.abs(given["x"]).max() * rstd.max())
        limit = 16 * np.finfo(np.float64).eps * max(1, condition)
        assert max(checked.values()) <= limit, (i, checked, limit)
        f32 = ""
        if case.dtype == "f32":
            dev = deviation(by_torch(case, given, torch.float32), want, scale)
            metadata[f"case{i}.deviation"] = " ".join(
                f"{k}={v:.2g}" for k, v in dev.items()
            )
            f32 = f"{max(dev.values()):.1e}"
        metadata[f"case{i}"] = case.text()
        metadata[f"case{i}.agreement"] = f"{max(checked.values()):.2g}"
        tensors |= {f"case{i}.{k}": v for k, v in (given | want).items()}
        print(f"{case.text():84s} {max(checked.values()):.1e}  {f32}")
    path = pathlib.Path(__file__).resolve().parent / "norm.safetensors"
    container.write(path, tensors, metadata)
    print(f"{path.name}: {path.stat().st_size} bytes, {len(tensors)} tensors")


if __name__ == "__main__":
    main()

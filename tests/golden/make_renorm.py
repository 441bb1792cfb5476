#!/usr/bin/env python3
"""Write renorm.safetensors beside this script: cases of batch renormalization.

Algorithm 1 of Ioffe 2017 (arXiv 1702.03275) in NumPy, in long double and rounded once at
the end, with the gradients as the paper has them, term by term. dx is confirmed by
differences of the loss with r and d held fixed. README.md in this folder lists the tensors.
"""

import pathlib
from dataclasses import dataclass

import numpy as np

import container

INF = float("inf")
TIGHT, LOOSE, FREE = (1.1, 0.1), (3.0, 5.0), (INF, INF)
STEPS = 4


@dataclass
class Case:
    shape: tuple
    limits: list  # (r_max, d_max) of every step
    momentum: float | None = 0.1  # None: plain average over all batches
    eps: float = 1e-5
    affine: bool = True
    norm_batch: int = 0  # samples that share statistics; 0: all
    dtype: str = "f64"  # of the inputs; expected values are always float64

    def text(self):
        return (
            f"shape={'x'.join(map(str, self.shape))} affine={int(self.affine)} "
            f"momentum={'none' if self.momentum is None else self.momentum} "
            f"eps={self.eps:g} steps={STEPS} norm_batch={self.norm_batch} "
            f"dtype={self.dtype}"
        )


SCHEDULE = [(1.0, 0.0), TIGHT, LOOSE, FREE]
CASES = [
    Case((9, 3), [TIGHT] * STEPS),
    Case((9, 3), [LOOSE] * STEPS, dtype="f32"),
    Case((7, 2, 3), [FREE] * STEPS, momentum=0.3, eps=1e-3),
    Case((7, 2, 3), [FREE] * STEPS, momentum=None, affine=False, dtype="f32"),
    Case((20, 2, 1, 2), SCHEDULE, momentum=0.5),
    Case((20, 2, 1, 2), SCHEDULE, dtype="f32"),
    Case((20, 2), [(2.0, 0.5)] * STEPS, norm_batch=8, momentum=0.25),
    Case((20, 2), [TIGHT, FREE, TIGHT, FREE], norm_batch=8, dtype="f32"),
    Case((11, 2), [(1.0, INF)] * STEPS),
    Case((11, 2), [(INF, 0.0)] * STEPS, momentum=None),
]


def inputs(case, rng):
    """Every step and channel has its own mean and deviation, from a third of those of the
    running averages to three times, so that r and d meet their limits from both sides."""
    shape, c = case.shape, case.shape[1]
    per_channel = (STEPS, 1, c) + (1,) * (len(shape) - 2)
    x = rng.standard_normal((STEPS,) + shape) * 3 ** rng.uniform(-1, 1, per_channel)
    x += rng.normal(0, 1.5, per_channel)
    out = {"x": x, "dy": rng.standard_normal((STEPS,) + shape) + 0.3}
    if case.affine:
        out |= {"gamma": rng.uniform(0.5, 1.5, c), "beta": rng.uniform(-1, 1, c)}
    dtype = {"f32": np.float32, "f64": np.float64}[case.dtype]
    return {k: v.astype(dtype) for k, v in out.items()}


def along(v, like):
    """A value per channel, shaped to meet an array of samples."""
    return v.reshape((1, -1) + (1,) * (like.ndim - 2))


def sum_channels(a):
    return a.sum((0,) + tuple(range(2, a.ndim)))


def max_channels(a):
    return np.abs(a).max((0,) + tuple(range(2, a.ndim)))


def loss(x, dy, gamma, beta, eps, r, d):
    """Σ dy·y with r and d as constants."""
    m = x.size // x.shape[1]
    mean = along(sum_channels(x) / m, x)
    sigma = np.sqrt(along(sum_channels((x - mean) ** 2) / m, x) + eps)
    xhat = (x - mean) / sigma * along(r, x) + along(d, x)
    return (dy * (along(gamma, x) * xhat + along(beta, x))).sum()


def confirm(x, dy, gamma, beta, eps, r, d, dx):
    """dx against five-point differences; h⁴ leaves 1e-12 of a fifth derivative."""
    h = np.longdouble(1e-3) * np.sqrt(x.var())
    for e in np.ndindex(x.shape):
        slope = 0
        for weight, step in ((1, -2), (-8, -1), (8, 1), (-1, 2)):
            moved = x.copy()
            moved[e] += step * h
            slope += weight * loss(moved, dy, gamma, beta, eps, r, d)
        error = abs(slope / (12 * h) - dx[e])
        assert error < 1e-8 * (1 + np.abs(dx).max()), (e, error, dx[e])


def norm_batch(x, dy, gamma, beta, eps, mean, var, limits):
    """One set of statistics: Algorithm 1, the gradients of section 3, what was clipped,
    and per channel the magnitude of the terms that add up to each value."""
    r_max, d_max = limits
    m = x.size // x.shape[1]
    mu_b = sum_channels(x) / m
    centered = x - along(mu_b, x)
    sigma_b = np.sqrt(sum_channels(centered**2) / m + eps)
    sigma = np.sqrt(var + eps)
    r = np.clip(sigma_b / sigma, 1 / r_max, r_max)
    d = np.clip((mu_b - mean) / sigma, -d_max, d_max)
    xhat = centered / along(sigma_b, x) * along(r, x) + along(d, x)

    dxhat = dy * along(gamma, x)
    dsigma_b = sum_channels(dxhat * centered) * -r / sigma_b**2
    dmu_b = sum_channels(dxhat) * -r / sigma_b
    dx = (
        dxhat * along(r / sigma_b, x)
        + along(dsigma_b / (m * sigma_b), x) * centered
        + along(dmu_b / m, x)
    )
    confirm(x, dy, gamma, beta, eps, r, d, dx)

    # mean and running mean each are rounded relative to max|x|, which d divides by sigma
    reach = max_channels(x) + np.abs(mean)
    size = r * max_channels(centered) / sigma_b + np.abs(d) + reach / sigma
    most = max_channels(centered) / sigma_b
    return {
        "y": along(gamma, x) * xhat + along(beta, x),
        "dx": dx,
        "dweight": sum_channels(dy * xhat),
        "dbias": sum_channels(dy),
        "clipped": np.array(
            [(r != sigma_b / sigma).sum(), (d != (mu_b - mean) / sigma).sum()], float
        ),
        "y_size": np.abs(gamma) * size + np.abs(beta),
        "dx_size": np.abs(gamma) * r / sigma_b * max_channels(dy) * (2 + most),
        "dweight_size": sum_channels(np.abs(dy)) * size,
        "dbias_size": sum_channels(np.abs(dy)),
    }


def run(case, given):
    """All steps; running averages are those of the whole batch, from before the step."""
    c, n = case.shape[1], case.shape[0]
    wide = {k: v.astype(np.longdouble) for k, v in given.items()}
    one, zero = np.ones(c, np.longdouble), np.zeros(c, np.longdouble)
    gamma, beta = wide.get("gamma", one), wide.get("beta", zero)
    mean, var, steps = zero, one, []
    length = case.norm_batch or n
    for k, (x, dy) in enumerate(zip(wide["x"], wide["dy"])):
        parts = [
            norm_batch(
                x[at : at + length],
                dy[at : at + length],
                gamma,
                beta,
                case.eps,
                mean,
                var,
                case.limits[k],
            )
            for at in range(0, n, length)
        ]
        out = {key: np.concatenate([p[key] for p in parts]) for key in ("y", "dx")}
        out |= {key: sum(p[key] for p in parts) for key in ("dweight", "dbias")}
        out |= {key: sum(p[key] for p in parts) for key in ("dweight_size", "dbias_size")}
        out |= {
            key: np.max([p[key] for p in parts], axis=0) for key in ("y_size", "dx_size")
        }
        out["clipped"] = sum(p["clipped"] for p in parts) / (len(parts) * c)
        w = one[0] / (k + 1) if case.momentum is None else case.momentum
        m = x.size // c
        mean = mean + w * (sum_channels(x) / m - mean)
        spread = sum_channels((x - along(sum_channels(x) / m, x)) ** 2) / (m - 1)
        var = var + w * (spread - var)
        steps.append(out | {"running_mean": mean, "running_var": var})
    return {key: np.stack([s[key] for s in steps]).astype(float) for key in steps[0]}


def main():
    assert np.finfo(np.longdouble).nmant >= 63, "long double is no wider than double here"
    rng = np.random.default_rng(1702)
    tensors, metadata = {}, {"numpy": np.__version__, "cases": str(len(CASES))}
    for i, case in enumerate(CASES):
        given = inputs(case, rng)
        out = run(case, given)
        if not case.affine:
            for key in ("dweight", "dbias", "dweight_size", "dbias_size"):
                del out[key]
        out["limits"] = np.array(case.limits)
        metadata[f"case{i}"] = case.text()
        tensors |= {f"case{i}.{k}": v for k, v in (given | out).items()}
        print(case.text(), "clipped", np.round(out["clipped"].mean(0), 2))
    path = pathlib.Path(__file__).resolve().parent / "renorm.safetensors"
    container.write(path, tensors, metadata)
    print(f"{path.name}: {path.stat().st_size} bytes, {len(tensors)} tensors")


if __name__ == "__main__":
    main()

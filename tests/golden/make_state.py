#!/usr/bin/env python3
"""Write state.safetensors beside this script: a small net's state as PyTorch saves it,
and what its norm layer computes next. README.md in this folder lists the tensors.
"""

import copy
import pathlib
from collections import OrderedDict

import numpy as np
import torch
from torch import nn

import container

STEPS, N, C = 5, 6, 4


def trained(rng):
    """A net whose norm layer has seen STEPS batches, with gamma and beta not at 1 and 0."""
    net = nn.Sequential(
        OrderedDict(features=nn.Sequential(nn.Conv2d(2, C, 3), nn.BatchNorm2d(C)))
    )
    norm = net.features[1]
    assert norm.momentum == 0.1 and norm.eps == 1e-5
    norm.load_state_dict(
        {
            "weight": torch.from_numpy(rng.uniform(0.5, 1.5, C).astype(np.float32)),
            "bias": torch.from_numpy(rng.uniform(-1, 1, C).astype(np.float32)),
        },
        strict=False,
    )
    for _ in range(STEPS):
        x = rng.standard_normal((N, C, 3, 3)) * rng.uniform(1, 3, (1, C, 1, 1))
        norm(torch.from_numpy((x + rng.normal(0, 2, (1, C, 1, 1))).astype(np.float32)))
    return net


def running(x, mean, var, weight_of_new):
    """One step of the running statistics from the formulas, in long double."""
    x, w = x.astype(np.longdouble), np.longdouble(weight_of_new)
    n, axes = x.size // C, (0, 2, 3)
    new = x.sum(axes) / n
    unbiased = ((x - new.reshape(1, C, 1, 1)) ** 2).sum(axes) / (n - 1)
    return (1 - w) * mean + w * new, (1 - w) * var + w * unbiased


def main():
    torch.set_num_threads(1)
    torch.manual_seed(1502)
    rng = np.random.default_rng(1502)
    net = trained(rng)
    state = {k: v.numpy().copy() for k, v in net.state_dict().items()}
    assert state["features.1.num_batches_tracked"] == STEPS
    # As PyTorch wrote before it counted batches (0.4.0 and earlier).
    old = {
        k.replace("features.1.", "old.1."): v
        for k, v in state.items()
        if k.startswith("features.1.") and not k.endswith("num_batches_tracked")
    }
    # From here on in float64, from the float32 state and input.
    norm = copy.deepcopy(net.features[1]).double()
    x = (2 * rng.standard_normal((N, C, 3, 3)) + 1.5).astype(np.float32)
    after = {"x": x}
    norm.eval()
    after["y_eval"] = norm(torch.from_numpy(x).double()).detach().numpy()
    norm.train()
    norm(torch.from_numpy(x).double())
    after |= {k: v.numpy() for k, v in norm.named_buffers()}
    by_hand = running(
        x, state["features.1.running_mean"], state["features.1.running_var"], 0.1
    )
    for name, hand in zip(("running_mean", "running_var"), by_hand):
        assert np.abs(after[name] - hand).max() <= 1e-15 * (1 + np.abs(hand).max()), name
    tensors = state | old | {f"next.{k}": v for k, v in after.items()}
    path = pathlib.Path(__file__).resolve().parent / "state.safetensors"
    container.write(
        path, tensors, {"format": "pt", "torch": torch.__version__.split("+")[0]}
    )
    print(f"{path.name}: {path.stat().st_size} bytes, {len(tensors)} tensors")


if __name__ == "__main__":
    main()

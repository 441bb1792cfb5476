#!/usr/bin/env python3
"""Write train_article, train_mlp and train_residual.safetensors beside this script.

Twenty SGD steps of each net in PyTorch, in float64 (the golden values) and in float32
(the measure of what float32 can reach). README.md in this folder lists the tensors.

    python3 make_train.py              writes the three files
    python3 make_train.py NET          writes that of one net
    python3 make_train.py --search N   ranks N seeds for the article net, writes nothing
"""

import argparse
import math
import pathlib

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import container

STEPS, BATCHES, BATCH = 20, 4, 24
LR, MOMENTUM = 0.05, 0.9
SEED = {"article": 1601, "mlp": 1, "residual": 1}
# A pool or relu whose decision hangs on less than float32's rounding may be decided
# otherwise, and gradients then differ by far more than rounding. Every decision of all
# steps is to be farther away than the largest float32 deviation of its layer. The residual
# net has too many of them for twenty steps: in float32 only its first is compared.
MIN_MARGIN = 1


class Article(nn.Module):
    """The net of the article; the relu after dense2 is in the original."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, 5)
        self.conv2 = nn.Conv2d(10, 20, 5)
        self.conv2_bn = nn.BatchNorm2d(20)
        self.dense1 = nn.Linear(320, 50)
        self.dense1_bn = nn.BatchNorm1d(50)
        self.dense2 = nn.Linear(50, 10)
        self.relus, self.pools = [], []

    def relu(self, x):
        self.relus.append(x.detach())
        return F.relu(x)

    def pool(self, x):
        self.pools.append(x.detach())
        return F.max_pool2d(x, 2)

    def forward(self, x):
        self.relus, self.pools = [], []
        x = self.relu(self.pool(self.conv1(x)))
        x = self.relu(self.pool(self.conv2_bn(self.conv2(x))))
        x = self.relu(self.dense1_bn(self.dense1(x.flatten(1))))
        return F.log_softmax(self.relu(self.dense2(x)), dim=1)


def margin(steps64, steps32):
    """How far a run was from another decision of a relu or pool, in units of the largest
    float32 deviation of that layer in that step."""
    m = math.inf
    for (relus, pools), (relus32, pools32) in zip(steps64, steps32):
        for z, w in zip(relus, relus32):
            m = min(m, (z.abs().min() / (z - w).abs().max()).item())
        for z, w in zip(pools, pools32):
            windows = z.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
            top = windows.topk(2, dim=4).values
            gap = (top[..., 0] - top[..., 1])[top[..., 0] > 0]
            # Equal values come from equal patches: either choice gives the same gradient.
            m = min(m, (gap[gap > 1e-12].min() / (z - w).abs().max()).item())
    return m


class Mlp(nn.Module):
    """Ioffe & Szegedy 2015, par. 4.1: sigmoids, a norm before each."""

    def __init__(self):
        super().__init__()
        self.dense1, self.dense1_bn = nn.Linear(784, 100), nn.BatchNorm1d(100)
        self.dense2, self.dense2_bn = nn.Linear(100, 100), nn.BatchNorm1d(100)
        self.dense3, self.dense3_bn = nn.Linear(100, 100), nn.BatchNorm1d(100)
        self.dense4 = nn.Linear(100, 10)

    def forward(self, x):
        x = x.flatten(1)
        x = torch.sigmoid(self.dense1_bn(self.dense1(x)))
        x = torch.sigmoid(self.dense2_bn(self.dense2(x)))
        x = torch.sigmoid(self.dense3_bn(self.dense3(x)))
        return F.log_softmax(self.dense4(x), dim=1)


class Residual(nn.Module):
    """A stem and two residual blocks, of one shape and of another (He et al. 2016)."""

    def __init__(self):
        super().__init__()
        self.stem, self.stem_bn = nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4)
        self.one_conv1, self.one_bn1 = nn.Conv2d(4, 4, 3, 1, 1), nn.BatchNorm2d(4)
        self.one_conv2, self.one_bn2 = nn.Conv2d(4, 4, 3, 1, 1), nn.BatchNorm2d(4)
        self.two_conv, self.two_bn = nn.Conv2d(4, 8, 1, 2), nn.BatchNorm2d(8)
        self.two_conv1, self.two_bn1 = nn.Conv2d(4, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.two_conv2, self.two_bn2 = nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8)
        self.dense = nn.Linear(8, 10)
        self.relus = []

    def relu(self, x):
        self.relus.append(x.detach())
        return F.relu(x)

    def forward(self, x):
        self.relus = []
        x = self.relu(self.stem_bn(self.stem(x)))
        y = self.relu(self.one_bn1(self.one_conv1(x)))
        x = self.relu(self.one_bn2(self.one_conv2(y)) + x)
        y = self.relu(self.two_bn1(self.two_conv1(x)))
        x = self.relu(self.two_bn2(self.two_conv2(y)) + self.two_bn(self.two_conv(x)))
        return F.log_softmax(self.dense(x.mean(dim=(2, 3))), dim=1)


NETS = {"article": Article, "mlp": Mlp, "residual": Residual}


def make_data():
    """Stripes whose direction is the class, in a blob; every other ground is black."""
    rng = np.random.default_rng(20150211)
    n = BATCHES * BATCH
    labels = rng.permutation(np.arange(n) % 10)
    yy, xx = np.mgrid[0:28, 0:28].astype(np.float64)
    images = np.zeros((n, 1, 28, 28), np.uint8)
    for i, label in enumerate(labels):
        cy, cx = 13.5 + rng.uniform(-4, 4, 2)
        angle = math.pi * label / 10 + rng.normal(0, 0.05)
        phase, period = rng.uniform(0, 2 * math.pi), rng.uniform(5, 8)
        along = (xx - cx) * math.cos(angle) + (yy - cy) * math.sin(angle)
        blob = np.exp(-((yy - cy) ** 2 + (xx - cx) ** 2) / (2 * rng.uniform(5, 7) ** 2))
        image = 200 * blob * (0.5 + 0.5 * np.sin(2 * math.pi * along / period + phase))
        image += rng.uniform(0, 50, image.shape)
        if i % 2 == 0:
            image[blob < 0.2] = 0
        images[i, 0] = image.clip(0, 255).round()
    return images.reshape(BATCHES, BATCH, 1, 28, 28), labels.reshape(BATCHES, BATCH)


def start(net, seed):
    """PyTorch's default weights; the norms start away from theirs, to be seen."""
    torch.manual_seed(seed)
    model = NETS[net]()
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.25, 0.25)
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
            module.num_batches_tracked.fill_(5)
    return {k: v.clone() for k, v in model.state_dict().items()}


def run(net, state, images, labels, dtype):
    """Losses, first gradients, final buffers and evaluation losses of a run in dtype."""
    model = NETS[net]()
    model.load_state_dict(state)
    model.to(dtype)
    # Scaled in float32 in both runs: they are to differ by their arithmetic only.
    x = (torch.from_numpy(images).float() / 255).to(dtype)
    y = torch.from_numpy(labels)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    out = {"losses": [], "alive": True, "decisions": []}
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = F.nll_loss(model(x[step % BATCHES]), y[step % BATCHES])
        loss.backward()
        out["losses"].append(loss.item())
        if step == 0:
            out["grad"] = {
                k: p.grad.double().numpy() for k, p in model.named_parameters()
            }
        if net == "article":
            out["decisions"].append(
                ([z.double() for z in model.relus], [z.double() for z in model.pools])
            )
            out["alive"] &= bool((model.relus[-1] > 0).any(dim=0).all())
        elif net == "residual" and step == 0:
            out["decisions"].append(([z.double() for z in model.relus], []))
        optimizer.step()
    out["losses"] = np.array(out["losses"])
    out["final"] = {
        k: v.numpy() if v.dtype == torch.int64 else v.double().numpy()
        for k, v in model.named_buffers()
    }
    model.eval()
    with torch.no_grad():
        out["eval_losses"] = np.array(
            [F.nll_loss(model(x[b]), y[b]).item() for b in range(BATCHES)]
        )
    return out


def layer_scale(grads, name):
    """Largest |gradient| of the layer: that of a bias before a norm is only rounding."""
    layer = name.rsplit(".", 1)[0]
    return max(np.abs(g).max() for k, g in grads.items() if k.startswith(layer + "."))


def deviations(g64, g32):
    dev = {
        f"deviation.grad.{k}": np.abs(g32["grad"][k] - g).max()
        / layer_scale(g64["grad"], k)
        for k, g in g64["grad"].items()
    }
    dev["deviation.grad"] = max(dev.values())
    for key in ("losses", "eval_losses"):
        dev[f"deviation.{key}"] = (np.abs(g32[key] - g64[key]) / g64[key]).max()
    dev["deviation.losses.first"] = abs(g32["losses"][0] / g64["losses"][0] - 1)
    dev["deviation.final"] = max(
        np.abs(g32["final"][k] - v).max() / np.abs(v).max()
        for k, v in g64["final"].items()
    )
    return dev


def write(net, images, labels, folder):
    state = start(net, SEED[net])
    g64 = run(net, state, images, labels, torch.float64)
    g32 = run(net, state, images, labels, torch.float32)
    assert g64["alive"], f"seed {SEED[net]}: the last relu kills a class"
    far = margin(g64["decisions"], g32["decisions"])
    assert far >= MIN_MARGIN, f"seed {SEED[net]}: margin {far:g}"

    tensors = {k: v.numpy() for k, v in state.items()}
    tensors |= {"images": images, "labels": labels.astype(np.int64)}
    tensors |= {
        "losses": g64["losses"],
        "losses_f32": g32["losses"],
        "eval_losses": g64["eval_losses"],
    }
    tensors |= {f"grad.{k}": v for k, v in g64["grad"].items()}
    tensors |= {f"final.{k}": v for k, v in g64["final"].items()}
    rounded = "none"
    if net == "mlp":
        # Halves the largest tensor; rounding (6e-8) is far below float32's deviation.
        rounded = "grad.dense1.weight"
        tensors[rounded] = tensors[rounded].astype(np.float32)
    dev = deviations(g64, g32)
    metadata = {
        "net": net,
        "torch": torch.__version__.split("+")[0],
        "seed": str(SEED[net]),
        "steps": str(STEPS),
        "batches": str(BATCHES),
        "batch": str(BATCH),
        "lr": str(LR),
        "momentum": str(MOMENTUM),
        "loss": "mean negative log likelihood",
        "input": "images/255 in float32",
        "rounded_to_f32": rounded,
        "margin": "none" if net == "mlp" else f"{far:.3g}",
    } | {k: f"{v:.3g}" for k, v in dev.items()}
    path = folder / f"train_{net}.safetensors"
    container.write(path, tensors, metadata)
    print(
        f"{path.name}: {path.stat().st_size} bytes, losses {g64['losses'][0]:.6f} … "
        f"{g64['losses'][-1]:.6f}, margin {far:.3g}"
    )
    for k, v in dev.items():
        print(f"  {k:34s} {v:.2e}")


def search(count, images, labels):
    found = []
    for seed in range(count):
        state = start("article", seed)
        g64, g32 = (
            run("article", state, images, labels, t) for t in (torch.float64, torch.float32)
        )
        if g64["alive"] and g32["alive"]:
            far = margin(g64["decisions"], g32["decisions"])
            found.append((far, seed, g64["losses"][-1]))
    for far, seed, loss in sorted(found, reverse=True)[:10]:
        print(f"seed {seed}: margin {far:.3g}, last loss {loss:.4f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("net", nargs="*", help="which files to write")
    parser.add_argument("--search", type=int, metavar="N", help="rank seeds 0…N-1")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    images, labels = make_data()
    if args.search:
        search(args.search, images, labels)
        return
    for net in args.net or NETS:
        write(net, images, labels, pathlib.Path(__file__).resolve().parent)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Time PyTorch training one of our nets; print one JSON object.

One process on one thread, or data-parallel over several (gloo, one thread each) with a
norm whose statistics are those of the global batch. torch.nn.SyncBatchNorm refuses CPU
tensors, so that norm is made by hand here: an all-reduce of [sum x, sum x^2, n] that
autograd can pass.

    python3 torch_train.py --batch 64
    python3 torch_train.py --batch 64 --processes 2
"""

import argparse
import inspect
import json
import os
import sys
import statistics
import tempfile
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn import functional as F

IMAGES = 60000


class SumOverProcesses(torch.autograd.Function):
    """Every process's loss depends on the sum, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, x):
        dist.all_reduce(x)
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx, grad):
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad


class SyncNorm(nn.Module):
    """Batch norm over all processes for (n,c) and (n,c,h,w)."""

    def __init__(self, channels, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x):
        c, axes = x.shape[1], [0, *range(2, x.dim())]
        col = (1, c) + (1,) * (x.dim() - 2)
        local = torch.cat([x.sum(axes), (x * x).sum(axes), x.new_tensor([x.numel() / c])])
        sums = SumOverProcesses.apply(local)
        n = sums[2 * c].detach()
        mean = sums[:c] / n
        var = sums[c : 2 * c] / n - mean * mean
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (n / (n - 1)), self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return x * scale.view(col) + (self.bias - mean * scale).view(col)


def norm2d(channels, sync):
    return SyncNorm(channels) if sync else nn.BatchNorm2d(channels)


def norm1d(features, sync):
    return SyncNorm(features) if sync else nn.BatchNorm1d(features)


class Cnn(nn.Module):
    def __init__(self, sync):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, 5)
        self.conv2 = nn.Conv2d(10, 20, 5)
        self.conv2_bn = norm2d(20, sync)
        self.dense1 = nn.Linear(320, 50)
        self.dense1_bn = norm1d(50, sync)
        self.dense2 = nn.Linear(50, 10)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2_bn(self.conv2(x)), 2))
        x = F.relu(self.dense1_bn(self.dense1(x.flatten(1))))
        return F.log_softmax(self.dense2(x), dim=1)


class Block(nn.Module):
    """Two 3x3 convolutions beside nothing, or a 1x1 convolution where the shape changes."""

    def __init__(self, taken, channels, stride, sync):
        super().__init__()
        self.conv1 = nn.Conv2d(taken, channels, 3, stride, 1)
        self.bn1 = norm2d(channels, sync)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.bn2 = norm2d(channels, sync)
        self.side = nn.Identity()
        if stride > 1:
            self.side = nn.Sequential(
                nn.Conv2d(taken, channels, 1, stride), norm2d(channels, sync)
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.side(x))


class Resnet8(nn.Module):
    def __init__(self, sync):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, 1, 1)
        self.stem_bn = norm2d(16, sync)
        self.stages = nn.Sequential(
            Block(16, 16, 1, sync), Block(16, 32, 2, sync), Block(32, 64, 2, sync)
        )
        self.dense = nn.Linear(64, 10)

    def forward(self, x):
        x = self.stages(F.relu(self.stem_bn(self.stem(x))))
        return F.log_softmax(self.dense(x.mean((2, 3))), dim=1)


NETS = {"cnn": Cnn, "resnet8": Resnet8}


class Trainer:
    """A net whose gradients lie in one bucket, summed over processes in one message."""

    def __init__(self, net, sync, layout, dtype=torch.float32):
        torch.manual_seed(1)
        self.model, self.sync = NETS[net](sync).to(dtype), sync
        if layout == "nhwc":
            self.model.to(memory_format=torch.channels_last)
        params = list(self.model.parameters())
        self.bucket = torch.zeros(sum(p.numel() for p in params), dtype=dtype)
        for p, grad in zip(params, self.bucket.split([p.numel() for p in params])):
            p.grad = grad.as_strided(p.shape, p.stride(), grad.storage_offset())
        # The fused update is the fastest that PyTorch offers. 1.13 lacks it; its other two
        # take the same time.
        known = inspect.signature(torch.optim.SGD).parameters
        fused = {"fused": True} if "fused" in known else {}
        self.optimizer = torch.optim.SGD(params, lr=0.05, momentum=0.9, **fused)

    def step(self, x, y, batch):
        self.bucket.zero_()
        # Over the global batch, so that the sum over processes is the mean's gradient.
        loss = F.nll_loss(self.model(x), y, reduction="sum") / batch
        loss.backward()
        if self.sync:
            dist.all_reduce(self.bucket)
        self.optimizer.step()


class Data:
    """Random images, held as bytes, scaled per batch: time depends on nothing they show."""

    def __init__(self, rank, size, batch):
        g = torch.Generator().manual_seed(1)
        self.images = torch.randint(
            0, 256, (IMAGES, 1, 28, 28), dtype=torch.uint8, generator=g
        )
        self.labels = torch.randint(0, 10, (IMAGES,), generator=g)
        self.order = torch.randperm(IMAGES, generator=g)
        self.first, self.last = batch * rank // size, batch * (rank + 1) // size
        self.batch, self.at = batch, 0

    def next(self, dtype=torch.float32):
        if self.at + self.batch > IMAGES:
            self.at = 0
        mine = self.order[self.at + self.first : self.at + self.last]
        self.at += self.batch
        return self.images[mine].to(dtype) / 255, self.labels[mine]


def check(rank, size, net, layout):
    """The data-parallel steps are those of one process on the joined batch."""
    parallel = Trainer(net, True, layout, torch.float64)
    alone = Trainer(net, False, "nchw", torch.float64)
    part, whole = Data(rank, size, 22), Data(0, 1, 22)
    for _ in range(3):
        parallel.step(*part.next(torch.float64), 22)
        alone.step(*whole.next(torch.float64), 22)
    theirs = alone.model.state_dict()
    for name, value in parallel.model.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-9, atol=1e-9)


def measure(rank, size, args):
    """Images per second of each repeat."""
    trainer, data, rates = (
        Trainer(args.net, size > 1, args.layout),
        Data(rank, size, args.batch),
        [],
    )
    steps = -(-args.images // args.batch)
    for repeat in range(args.repeats + 1):  # the first warms up
        if size > 1:
            dist.barrier()
        start = time.perf_counter()
        for _ in range(steps):
            trainer.step(*data.next(), args.batch)
        if repeat:
            rates.append(steps * args.batch / (time.perf_counter() - start))
    return rates


def work(rank, args, folder):
    torch.set_num_threads(1)
    if args.processes > 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/store",
            rank=rank,
            world_size=args.processes,
        )
        check(rank, args.processes, args.net, args.layout)
    rates = measure(rank, args.processes, args)
    if rank == 0:
        print(
            json.dumps(
                {
                    "kind": "bench",
                    "what": "train",
                    "peer": "torch",
                    "version": torch.__version__.split("+")[0],
                    "net": args.net,
                    "layout": args.layout,
                    "processes": args.processes,
                    "threads": 1,
                    "batch": args.batch,
                    "images_per_s": round(statistics.median(rates), 1),
                    "images_per_s_min": round(min(rates), 1),
                    "images_per_s_max": round(max(rates), 1),
                    "repeats": args.repeats,
                    "images": args.images,
                }
            ),
            flush=True,
        )
    if args.processes > 1:
        # gloo's threads sometimes abort while the interpreter is torn down; the figures
        # are out by now.
        dist.barrier()
        sys.stdout.flush()
        os._exit(0)


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number of 1 or more, got {text}")
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", choices=sorted(NETS), default="cnn")
    parser.add_argument("--batch", type=positive, default=64, help="global batch (64)")
    parser.add_argument(
        "--processes", type=positive, default=1, help="1 is plain training (1)"
    )
    parser.add_argument(
        "--layout",
        choices=["nchw", "nhwc"],
        default="nchw",
        help="of the weights: nchw is PyTorch's default, nhwc its channels_last",
    )
    parser.add_argument(
        "--repeats", type=positive, default=5, help="the median is printed (5)"
    )
    parser.add_argument(
        "--images",
        type=positive,
        default=6400,
        help="trained in each repeat, and once more to warm up (6400)",
    )
    args = parser.parse_args()
    if args.batch > IMAGES:
        parser.error(f"--batch is at most {IMAGES}")
    # One thread for the libraries below torch too; set before the workers start.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        if args.processes == 1:
            work(0, args, folder)
        else:
            mp.spawn(work, args=(args, folder), nprocs=args.processes)


if __name__ == "__main__":
    main()

"""Training throughput of `ml` against a plain PyTorch loop that does the same arithmetic.

Both run in one process, alternating, on one thread; each figure is the median ratio of the CPU times of
neighbouring pairs. Uses MNIST if it is found (data_dir), otherwise random images of the same shape. Run by
hand:

    python benchmarks/launcher.py [--data ../shared/data] [--pairs 7] [--only mlp cnn ...]
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from antelope import ml
from antelope.envs.augment import RandomCrop
from antelope.replay import Replay, Standardize, Table
from antelope.replay.spec import Space

Data = tuple[Tensor, Tensor]
_WARM_UP = 2  # Steps not timed: allocators, caches, and what a run writes when it begins.


class MLP(nn.Module):
    """784-256-10."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10)
        )

    def forward(self, obs: Tensor) -> Tensor:
        return self.network(obs)

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label)


class CNN(MLP):
    """Two convolutions and a linear layer."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.network = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 49, 10),
        )


class ResNet18(MLP):
    """torchvision's, with the stem for small images."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        from torchvision.models import resnet18

        self.network = resnet18(num_classes=10)


def plain_loop(model: nn.Module, data: Data, *, steps: int, batch_size: int, augment: Any) -> float:
    """CPU seconds per training step, written out by hand."""
    inputs, labels = data
    first = inputs[:10_000].float()
    mean, stddev = first.mean((0, 2, 3))[:, None, None], first.std((0, 2, 3))[:, None, None]
    del first
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    done, start = 0, 0.0
    while True:
        for index in torch.randperm(len(inputs)).split(batch_size):
            if done == _WARM_UP:
                start = time.process_time()
            x = inputs.index_select(0, index).float()
            if augment is not None:
                x = augment(x.div_(255)).mul_(255)
            x = x.sub_(mean).div_(stddev)
            loss = F.cross_entropy(model(x), labels.index_select(0, index))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
            if done == steps:
                return (time.process_time() - start) / (steps - _WARM_UP)


class Clock:
    """Times the steps of a run from inside, between calls of `learn`, the first few left out."""

    def __init__(self, model: nn.Module):
        self.model, self.calls, self.first, self.last = model, 0, 0.0, 0.0
        learn = model.learn

        def timed(replay: Any) -> Tensor:
            self.last = time.process_time()
            if self.calls == _WARM_UP:
                self.first = self.last
            self.calls += 1
            return learn(replay)

        model.learn = timed  # type: ignore[method-assign]

    def seconds_per_step(self) -> float:
        return (self.last - self.first) / (self.calls - 1 - _WARM_UP)


def throughput(
    make: Callable[[], nn.Module],
    data: Data,
    *,
    steps: int,
    batch_size: int,
    pairs: int,
    aug: Any = None,
) -> tuple[float, float]:
    """Median ratio of `ml`'s steps per second to the plain loop's, and the latter."""
    ratios, rates = [], []
    for pair in range(pairs + 1):
        gc.collect()
        torch.manual_seed(0)
        plain = plain_loop(make(), data, steps=steps, batch_size=batch_size, augment=aug)
        with tempfile.TemporaryDirectory() as folder:
            model = make()
            clock = Clock(model)
            ml(
                model=model,
                dataset=data,
                test_dataset=(data[0][:10], data[1][:10]),
                train_steps=steps,
                batch_size=batch_size,
                eval_every=10**9,
                path=folder,
                plot=False,
                progress=False,
                **({} if aug is None else {"aug": aug}),
            )
        if pair:  # The first pair warms up.
            ratios.append(plain / clock.seconds_per_step())
            rates.append(1 / plain)
    return statistics.median(ratios), statistics.median(rates)


def cost_of_next(data: Data, *, pairs: int) -> float:
    """Microseconds of `next(replay)` above its gathers and float conversion."""
    space = Space((1, 28, 28), torch.uint8, 0.0, 255.0, torch.tensor([33.3]), torch.tensor([78.6]))
    replay = Replay(Table(obs=data[0], label=data[1]), Standardize(space), batch_size=128)
    shift, factor = torch.tensor([[[33.3]]]), 1 / 78.6
    offset, costs = -shift * factor, []
    order = torch.randperm(len(data[0])).split(128)

    def gathers(index: Tensor) -> None:
        x = data[0].index_select(0, index).float()
        torch.add(offset, x, alpha=factor, out=x)
        data[1].index_select(0, index)

    # Short blocks in turn, because a block is often interrupted on a shared machine.
    for block in range(20 * pairs):
        indices = order[block % 4 * 100 :][:100]
        start = time.process_time()
        for index in indices:
            gathers(index)
        middle = time.process_time()
        for _ in indices:
            next(replay)
        costs.append((time.process_time() - 2 * middle + start) / len(indices) * 1e6)
    return statistics.median(costs)


def plain_mnist(data_dir: str) -> float:
    """One epoch of MNIST written out by hand, from reading the files to the accuracy that it returns."""
    from torchvision.datasets import MNIST

    train, test = MNIST(data_dir, train=True), MNIST(data_dir, train=False)
    inputs, labels = train.data[:, None], train.targets
    values = inputs.float()
    mean, stddev = values.mean(), values.std()
    del values
    model = MLP()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    for index in torch.randperm(len(inputs)).split(128):
        x = inputs.index_select(0, index).float().sub_(mean).div_(stddev)
        loss = F.cross_entropy(model(x), labels.index_select(0, index))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    right = 0
    with torch.no_grad():
        for images, truth in zip(test.data.split(1000), test.targets.split(1000), strict=True):
            x = images[:, None].float().sub_(mean).div_(stddev)
            right += int((model(x).argmax(1) == truth).sum())
    return right / len(test.data)


def whole_call(data_dir: str, *, pairs: int) -> tuple[float, float]:
    """Median ratio of the plain loop's CPU seconds for one epoch of MNIST to `ml`'s, and the former.

    The whole call, without imports: reading, training, evaluation, and all that a run writes.
    """
    ratios, seconds = [], []
    for pair in range(pairs + 1):
        gc.collect()
        torch.manual_seed(0)
        start = time.process_time()
        plain_mnist(data_dir)
        middle = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            ml(
                model=MLP,
                dataset="MNIST",
                data_dir=data_dir,
                epochs=1,
                batch_size=128,
                lr=1e-3,
                path=folder,
                progress=False,
            )
            end = time.process_time()
        if pair:  # The first pair imports what is imported late.
            ratios.append((middle - start) / (end - middle))
            seconds.append(middle - start)
    return statistics.median(ratios), statistics.median(seconds)


_MODEL = """
import sys, time; sys.path.insert(0, {root!r})
import torch, torch.nn as nn, torch.nn.functional as F
def network(inputs, outputs): return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs))
"""
_PLAIN_START = """
import numpy as np
with np.load({root!r} + "/envs/data/digits.npz") as file:
    x, y = torch.from_numpy(file["inputs"]).float(), torch.from_numpy(file["targets"]).long()
x = (x - x.mean()) / x.std()
net = network(64, 10)
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
index = torch.randperm(len(x))[:32]
loss = F.cross_entropy(net(x[index]), y[index])
optimizer.zero_grad(); loss.backward(); optimizer.step()
print(time.process_time())
"""
_OUR_START = """
import tempfile
from antelope import ml
class Stop(Exception): pass
class Model(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__(); self.net, self.stepped = network(in_features, out_features), False
    def forward(self, obs): return self.net(obs)
    def learn(self, replay):
        if self.stepped: raise Stop
        self.stepped = True
        batch = next(replay); return F.cross_entropy(self(batch.obs), batch.label)
try: ml("lr=1e-3", model=Model, path=tempfile.mkdtemp())
except Stop: pass
print(time.process_time())
"""


def start_up(pairs: int) -> tuple[float, float, float]:
    """CPU seconds from process start until the first step has been taken.

    Returns:
        Medians of `ml` and of a plain script that does the same, and the median difference of pairs.
    """
    root = str(Path(__file__).resolve().parent.parent)
    found: list[tuple[float, ...]] = []
    with tempfile.TemporaryDirectory() as compiled:
        # As an installed package is: compiled once, by the first pair.
        known = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment = {**known, "PYTHONPYCACHEPREFIX": compiled, "OMP_NUM_THREADS": "1"}
        for _ in range(pairs + 1):
            pair = []
            for code in (_OUR_START, _PLAIN_START):
                done = subprocess.run(
                    [sys.executable, "-W", "ignore", "-c", (_MODEL + code).format(root=root)],
                    capture_output=True,
                    text=True,
                    check=True,
                    env=environment,
                )
                pair.append(float(done.stdout.splitlines()[-1]))
            found.append((*pair, pair[0] - pair[1]))
    ours, plain, above = (statistics.median(column) for column in zip(*found[1:], strict=True))
    return ours, plain, above


_MEMORY = """
import sys; sys.path.insert(0, {root!r})
import torch, re; torch.set_num_threads(1)
import benchmarks.launcher as b
data = b.load({data!r})
open("/proc/self/clear_refs", "w").write("5")  # Linux: forget the peak of reading the files.
if {plain}:
    b.plain_loop(b.MLP(), data, steps=500, batch_size=128, augment=None)
else:
    import tempfile
    b.ml(model=b.MLP(), dataset=data, train_steps=500, batch_size=128, path=tempfile.mkdtemp(),
         test_dataset=(data[0][:10], data[1][:10]), plot=False, progress=False)
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024)
"""


def peak_memory(data_dir: str) -> tuple[float, float]:
    """Peak resident MiB of `ml` and of the plain loop on the same data."""
    root = str(Path(__file__).resolve().parent.parent)
    found = []
    for plain in (False, True):
        code = _MEMORY.format(root=root, data=data_dir, plain=plain)
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        found.append(float(run.stdout.splitlines()[-1]))
    return found[0], found[1]


def load(data_dir: str) -> Data:
    """MNIST's training images, or noise of the same shape."""
    if (Path(data_dir) / "MNIST").is_dir():
        from torchvision.datasets import MNIST

        mnist = MNIST(data_dir, train=True)
        return mnist.data[:, None].contiguous(), mnist.targets
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randint(256, (60_000, 1, 28, 28), dtype=torch.uint8, generator=generator),
        torch.randint(10, (60_000,), generator=generator),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--pairs", type=int, default=7)
    names = ["mlp", "cnn", "resnet", "mnist", "next", "start", "memory"]
    parser.add_argument("--only", nargs="*", default=names, choices=names)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load(arguments.data)
    pairs = arguments.pairs
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread")
    print(f"{'work':<44}{'ml / plain':>12}{'floor':>8}{'plain steps/s':>16}")

    def row(name: str, floor: float, ratio: float, rate: float) -> None:
        print(f"{name:<44}{ratio:>12.3f}{floor:>8.2f}{rate:>16.1f}", flush=True)

    if "mlp" in arguments.only:
        result = throughput(MLP, data, steps=1500, batch_size=128, pairs=pairs)
        row("MLP 784-256-10, batch 128", 0.90, *result)
    if "cnn" in arguments.only:
        crop = RandomCrop(padding=2)
        result = throughput(CNN, data, steps=400, batch_size=128, pairs=pairs, aug=crop)
        row("CNN, batch 128, random crop", 0.97, *result)
    if "resnet" in arguments.only:
        images = torch.randint(256, (2000, 3, 32, 32), dtype=torch.uint8)
        labels = torch.randint(10, (2000,))
        result = throughput(ResNet18, (images, labels), steps=12, batch_size=32, pairs=pairs)
        row("ResNet-18, 3x32x32, batch 32", 0.99, *result)
    if "mnist" in arguments.only and (Path(arguments.data) / "MNIST").is_dir():
        ratio, seconds = whole_call(arguments.data, pairs=pairs)
        print(
            f"One epoch of MNIST, the whole call: {ratio:.3f} of the plain loop's speed (at least 0.85), "
            f"which takes {seconds:.2f} s"
        )
    if "next" in arguments.only:
        print(
            f"next(replay) above its gathers: {cost_of_next(data, pairs=pairs):.1f} us (at most 15)"
        )
    if "start" in arguments.only:
        ours, plain, above = start_up(pairs)
        print(
            f"CPU from process start to the first step: {ours:.2f} s, a plain script {plain:.2f} s, "
            f"{above:+.2f} s (at most +0.30 where the plain script takes 3.4: "
            f"{0.3 * plain / 3.4:+.2f} here)"
        )
    if "memory" in arguments.only:
        ours, plain = peak_memory(arguments.data)
        print(f"Peak memory: {ours:.0f} MiB, plain loop {plain:.0f} MiB, {ours - plain:+.0f} MiB")


if __name__ == "__main__":
    main()

"""Naive and experience replay in plain PyTorch, one file: what `ml` is timed against in
benchmarks/continual.py.

Split-MNIST as Buzzega et al. (2020), arXiv 2004.07211. It learns in some seconds:

    python benchmarks/plain/rehearsal.py [DATA]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WARM_UP = 2  # Steps of a task not timed: caches, and what a run does when a task begins.


class MLP(nn.Sequential):
    """784-100-100-10, Xavier-uniform weights, zero biases."""

    def __init__(self, out_features: int = 10, hidden: int = 100):
        super().__init__(
            nn.Flatten(),
            nn.Linear(784, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, out_features),
        )
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)


class Clock:
    """CPU and wall time of the steps within tasks; called when each step begins."""

    def __init__(self) -> None:
        self.cpu = self.wall = 0.0
        self.steps = self.ticks = 0

    def begin(self) -> None:
        self.ticks = 0

    def tick(self) -> None:
        now = time.process_time(), time.perf_counter()
        if self.ticks == _WARM_UP:
            self.first = now
        self.last = now
        self.ticks += 1

    def end(self) -> None:
        if self.ticks > _WARM_UP:
            self.cpu += self.last[0] - self.first[0]
            self.wall += self.last[1] - self.first[1]
            self.steps += self.ticks - 1 - _WARM_UP

    def per_step(self) -> tuple[float, float]:
        """Seconds of CPU and of wall time."""
        return self.cpu / self.steps, self.wall / self.steps


class Reservoir:
    """A uniform sample of the stream, in preallocated tensors."""

    def __init__(self, capacity: int, shape: Sequence[int]):
        self.inputs = torch.zeros(capacity, *shape)
        self.labels = torch.zeros(capacity, dtype=torch.int64)
        self.capacity, self.seen = capacity, 0
        self.rng = np.random.default_rng(0)

    def add(self, inputs: Tensor, labels: Tensor) -> None:
        count = np.arange(self.seen, self.seen + len(inputs))
        self.seen += len(inputs)
        place = np.where(count < self.capacity, count, self.rng.integers(0, count + 1))
        kept = np.flatnonzero(place < self.capacity)
        if len(kept):
            places, rows = torch.from_numpy(place[kept]), torch.from_numpy(kept)
            self.inputs[places] = inputs[rows]
            self.labels[places] = labels[rows]

    def sample(self, n: int) -> tuple[Tensor, Tensor]:
        size = min(self.seen, self.capacity)
        index = torch.from_numpy(self.rng.choice(size, min(n, size), replace=False))
        return self.inputs.index_select(0, index), self.labels.index_select(0, index)


def train(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    clock: Clock,
    *,
    batch_size: int = 10,
    steps: int | None = None,
    lr: float = 0.03,
    capacity: int | None = None,
) -> None:
    """Learn five tasks of two classes, one after another.

    Args:
        data: uint8 images `[N, 1, 28, 28]` and int64 labels `[N]`.
        steps: Of each task; None: one epoch.
        capacity: Rows in memory; None: no memory.
    """
    inputs, labels = data
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    memory = Reservoir(capacity, inputs.shape[1:]) if capacity is not None else None
    for task in range(5):
        rows = (labels // 2 == task).nonzero().flatten()
        todo = steps or -(-len(rows) // batch_size)
        clock.begin()
        while todo:
            for index in rows[torch.randperm(len(rows))].split(batch_size)[:todo]:
                clock.tick()
                todo -= 1
                x = inputs.index_select(0, index).float().div_(255)
                y = labels.index_select(0, index)
                new_x, new_y = x, y
                if memory is not None and memory.seen:
                    past_x, past_y = memory.sample(len(x))
                    x, y = torch.cat((x, past_x)), torch.cat((y, past_y))
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
                if memory is not None:
                    memory.add(new_x, new_y)
        clock.end()


@torch.no_grad()
def accuracies(
    model: nn.Module, inputs: Tensor, labels: Tensor, tasks: list[Tensor]
) -> list[float]:
    """Of each task's rows, in batches of 1,000."""
    found = []
    for rows in tasks:
        right = 0
        for index in rows.split(1000):
            output = model(inputs.index_select(0, index).float().div_(255))
            right += int((output.argmax(1) == labels.index_select(0, index)).sum())
        found.append(right / len(rows))
    return found


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from torchvision.datasets import MNIST

    torch.set_num_threads(1)
    folder = sys.argv[1] if len(sys.argv) > 1 else "../shared/data"
    train_set, test_set = (MNIST(folder, train=part) for part in (True, False))
    images = train_set.data[:, None].contiguous()
    for capacity in (None, 500):
        torch.manual_seed(0)
        model, clock = MLP(), Clock()
        lr = 0.03 if capacity is None else 0.1
        train(model, (images, train_set.targets), clock, capacity=capacity, lr=lr)
        tasks = [(test_set.targets // 2 == task).nonzero().flatten() for task in range(5)]
        scores = accuracies(model, test_set.data[:, None], test_set.targets, tasks)
        name = "naive" if capacity is None else f"er, {capacity} rows"
        print(
            f"{name}: {100 * sum(scores) / 5:.2f} class-IL, {1 / clock.per_step()[1]:.0f} steps/s"
        )

"""One run on several devices beside the same run on one: weights, accuracy, and time of a step.

    python benchmarks/devices.py [--devices 2] [--device cpu] [--data FOLDER]

Both runs learn the same batches of MNIST (of the digits without `--data`), whose rows the devices share;
augmentation and dropout are off. `apart` is the largest difference of a weight, relative to the largest
weight: rounding, as sums are taken in another order. A step's time is that of a long run less that of a short
one, by the wall clock, and by the CPU time of all processes; `alone` is the time of one device. On a CPU
the processes share its cores, so that only the CPU time says anything: what ranks cost.
Without several GPUs, `--device cuda` is an error that says so.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import ml
from antelope.replay import ConfigError

SHORT, LONG = 10, 110  # Steps.


class CNN(nn.Module):
    """Two convolutions with BatchNorm, whose statistics ranks have to share."""

    def __init__(self, in_shape: tuple[int, ...], num_classes: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_shape[0], 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(128, num_classes),
        )

    def forward(self, obs: Tensor) -> Tensor:
        return self.body(obs)

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label)


CASES: dict[str, dict[str, Any]] = {
    "MLP": {"model": "MLP"},
    "MLP, accumulate=2, clip_grad=1": {"model": "MLP", "accumulate": 2, "clip_grad": 1.0},
    "MLP, precision=bf16": {"model": "MLP", "precision": "bf16"},
    "MLP, compile=true": {"model": "MLP", "compile": True},
    "MLP, er on five tasks": {"model": "MLP", "tasks": 5, "strategy": "er"},
    "CNN": {"model": CNN},
}
# BatchNorm normalises by the rows of one device: not what one device does, and in the field the usual.
DIFFERS = {"CNN"}


def used() -> tuple[float, float]:
    """Seconds: of the clock, and of the CPU in this process and those that have ended."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(u.ru_utime + u.ru_stime for u in usage)


def step(settings: dict[str, Any]) -> tuple[float, float, Any]:
    """Milliseconds of a step by the clock and by the CPU, and the longer run."""
    took, run = [], None
    for steps in (SHORT, LONG):
        before = used()
        with tempfile.TemporaryDirectory() as folder:
            run = ml(**settings, train_steps=steps, path=f"{folder}/run")
        took.append([now - then for now, then in zip(used(), before, strict=True)])
    clock, cpu = (1e3 * (long - short) / (LONG - SHORT) for short, long in zip(*took, strict=True))
    return clock, cpu, run


def apart(one: nn.Module, other: nn.Module) -> float:
    """The largest difference of a weight, relative to the largest weight."""
    pairs = [(a.detach().cpu(), b.detach().cpu())
             for a, b in zip(one.parameters(), other.parameters(), strict=True)]  # fmt: skip
    return max(float((a - b).abs().max()) for a, b in pairs) / max(
        float(a.abs().max()) for a, _ in pairs
    )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", help="the folder that holds MNIST")
    parser.add_argument("--only", help="cases that contain this text")
    args = parser.parse_args()
    torch.set_num_threads(1)
    common: dict[str, Any] = {"device": args.device, "threads": 1, "batch_size": 128, "plot": False}
    common |= {"optim": "SGD", "lr": 0.003}
    common |= {"progress": False, "eval_every": LONG, "eval_rows": 2000}
    common |= {"dataset": "MNIST", "data_dir": args.data} if args.data else {"dataset": "Digits"}
    if not torch.cuda.is_available():
        print("No GPU was at hand: processes of this CPU stand for devices.")
    print("\n| run | apart | accuracy: alone, shared | clock, ms a step | CPU, ms a step |")
    print("|---|---|---|---|---|")
    failed = 0
    step({**common, "model": "MLP"})  # Imports, and what the first run of a process pays.
    for name, case in CASES.items():
        if args.only and args.only not in name:
            continue
        try:
            alone = step({**common, **case})
            shared = step({**common, **case, "devices": args.devices})
        except ConfigError as error:
            print(f"| {name} | {error} | | | |")
            return 1
        far = apart(alone[2].agent, shared[2].agent)
        scores = [run.metrics["accuracy"] for _, _, run in (alone, shared)]
        if far > (1e-2 if "bf16" in name else 1e-4) and name not in DIFFERS:
            failed += 1
        print(
            f"| {name} | {far:.1e} | {scores[0]:.3f}, {scores[1]:.3f} | {alone[0]:.2f}, {shared[0]:.2f} "
            f"| {alone[1]:.2f}, {shared[1]:.2f} |",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""What benchmarks/faults.py trains, whichever framework does it: the embedded digits, and a small network."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

TRAIN_ROWS = 1437
_FILE = Path(__file__).resolve().parents[2] / "envs" / "data" / "digits.npz"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to train.

    Attributes:
        hidden: Width of the network.
        kind: Of the network.
        rows: To learn from; None: four fifths of them.
        drop_last: Whether to leave out a last batch that is smaller, where the framework can.
        log_every: Steps.
        eval_every: Steps; None: an epoch.
        guard: Whether the framework looks for a loss that is NaN, where it does so only on request.
    """

    seed: int = 0
    epochs: int = 8
    hidden: int = 32
    kind: str = "plain"
    rows: int | None = None
    drop_last: bool = False
    log_every: int = 10
    eval_every: int | None = None
    guard: bool = False


def digits(rows: int | None = None) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Inputs `[N, 64]` float32 in 0 to 1 and labels `[N]` int64, to learn from and held out.

    Args:
        rows: To learn from; None: four fifths of them.
    """
    with np.load(_FILE) as file:
        inputs = torch.from_numpy(file["inputs"]).flatten(1).float() / 16
        labels = torch.from_numpy(file["targets"]).long()
    rows = rows or TRAIN_ROWS
    return (inputs[:rows], labels[:rows]), (inputs[TRAIN_ROWS:], labels[TRAIN_ROWS:])


class Network(nn.Module):
    """64-hidden-10 with dropout, so that a resumed run also depends on the random numbers.

    Args:
        kind: `plain`, `norm` (with BatchNorm) or `renamed` (its parameters have other names).
    """

    def __init__(self, hidden: int = 32, kind: str = "plain"):
        super().__init__()
        norm = [nn.BatchNorm1d(hidden)] if kind == "norm" else []
        layers = [nn.Linear(64, hidden), *norm, nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, 10)]
        self.name = "body" if kind == "renamed" else "layers"
        self.add_module(self.name, nn.Sequential(*layers))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits `[N, 10]` of `[N, 64]`."""
        return self.get_submodule(self.name)(pixels)


class Watch:
    """Counts what a run learns from, and does to it what cannot be done from outside.

    Args:
        pause_s: Pause in each step, so that there is time to kill the run.
        kill_step: The step at which SIGKILL ends the process.
        nan_step: The step at which the loss becomes NaN.
    """

    def __init__(
        self, pause_s: float = 0.0, kill_step: int | None = None, nan_step: int | None = None
    ):
        self.pause_s, self.kill_step, self.nan_step = pause_s, kill_step, nan_step
        self.began: int | None = None
        self.rows = self.evaluated = 0

    def step(self, step: int, loss: Tensor, rows: int) -> Tensor:
        """The loss of a step, counted from 0, with a batch of so many rows."""
        if self.began is None:
            self.began = step
            Path("began.json").write_text(str(step))
        self.rows += rows
        self.evaluated = 0
        time.sleep(self.pause_s)
        if step == self.kill_step:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss * float("nan") if step == self.nan_step else loss

    def evaluates(self, rows: int) -> None:
        """Count the rows of an evaluation; each learning step resets the count."""
        self.evaluated += rows


def write_result(model: nn.Module, watch: Watch) -> None:
    """Write `result.json` into the working directory: a hash of the weights, and the rows counted."""
    digest = hashlib.sha256()
    for _, tensor in sorted(model.state_dict().items()):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    found = {"weights": digest.hexdigest(), "rows": watch.rows, "evaluated": watch.evaluated}
    Path("result.json").write_text(json.dumps(found))

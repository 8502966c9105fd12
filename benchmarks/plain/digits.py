"""What benchmarks/faults.py trains: the embedded digits and a small network, in plain PyTorch."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

TRAIN_ROWS = 1437
_FILE = Path(__file__).resolve().parents[2] / "envs" / "data" / "digits.npz"


def digits(rows: int | None = None) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and held-out `[N, 64]` float32 in 0 to 1, and `[N]` int64 labels.

    Args:
        rows: To learn from; None: four fifths.
    """
    with np.load(_FILE) as file:
        inputs = torch.from_numpy(file["inputs"]).flatten(1).float() / 16
        labels = torch.from_numpy(file["targets"]).long()
    rows = rows or TRAIN_ROWS
    return (inputs[:rows], labels[:rows]), (inputs[TRAIN_ROWS:], labels[TRAIN_ROWS:])


class Network(nn.Module):
    """64-hidden-10 with dropout, so that a resumed run also depends on the random numbers.

    Args:
        kind: `plain`, or `norm` for one with BatchNorm; any other has other names of parameters.
    """

    def __init__(self, hidden: int = 32, kind: str = "plain"):
        super().__init__()
        norm = [nn.BatchNorm1d(hidden)] if kind == "norm" else []
        layers = [nn.Linear(64, hidden), *norm, nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, 10)]
        self.name = "layers" if kind in ("plain", "norm") else "body"
        self.add_module(self.name, nn.Sequential(*layers))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits `[N, 10]` of `[N, 64]`."""
        return self.get_submodule(self.name)(pixels)


class Watch:
    """What happens to a run from its own inside: it slows down, is killed, or its loss becomes NaN.

    Args:
        pause_s: Of each step, so that there is time to kill the run.
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
        """The loss of a step, which is counted from 0; `rows`: of its batch."""
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
        """Count the rows of an evaluation; each training step starts the count over."""
        self.evaluated += rows


def write_result(model: nn.Module, watch: Watch) -> None:
    """Write `result.json` of the working directory: what the run began with, and what it ended with."""
    digest = hashlib.sha256()
    for _, tensor in sorted(model.state_dict().items()):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    found = {"weights": digest.hexdigest(), "rows": watch.rows, "evaluated": watch.evaluated}
    Path("result.json").write_text(json.dumps(found))

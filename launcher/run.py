"""What a call of `ml` gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..replay import Replay, Spec


@dataclass
class Run:
    """A finished run.

    Attributes:
        agent: The trained module, the user's own object, in eval mode on the run's device.
        spec: What it was built from.
        metrics: The final evaluation; over a sequence of tasks, the mean of all of them.
        history: The rows of train.csv and eval.csv, in order.
        replay: What it learnt from.
        path: The run directory.
        accuracy_matrix: float64 `[tasks, tasks]`: row i after learning task i, column j on task j; NaN for
            tasks to come after the next one, unless `eval_future=true`. With `eval_rows` all rows but the
            last are of the sample.
            The main metric (return, accuracy or R2) where that is not accuracy. Of classes split
            into tasks it is class-IL: all classes compete.
        task_il_matrix: The same when the task is told, and only its classes compete; the same as
            `accuracy_matrix` where tasks share their classes, empty where there are no classes.
        tasks: For each task `steps`, `seconds`, and `memory_bytes` and `parameters` of strategies.
    """

    agent: nn.Module
    spec: Spec
    metrics: dict[str, float]
    history: list[dict[str, Any]]
    replay: Replay
    path: Path
    accuracy_matrix: np.ndarray = field(repr=False)
    task_il_matrix: np.ndarray = field(repr=False)
    tasks: list[dict[str, Any]] = field(default_factory=list, repr=False)

    def __repr__(self) -> str:
        metrics = ", ".join(f"{name}={value:.4g}" for name, value in self.metrics.items())
        return f"Run({metrics}, path={str(self.path)!r})"

"""What a run wants of its world: a replay, evaluations, the length of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..replay import Batch
from .transform import Transform

ENV_STEPS = 50_000  # Steps in each environment, where `train_steps` is not given.


@dataclass(frozen=True)
class Evaluation:
    """How a run evaluates.

    Attributes:
        transform: Makes stored fields what the model receives, without augmentation.
        device: Where the model is.
        episodes: Per evaluation of an environment; 0: none.
        rows: Most held-out rows per task, always the same ones; None: all of them.
        seed: Seeds that sample.
        folder: Where videos go; None: nowhere.
        warn: Called with what a person should know of an evaluation.
    """

    transform: Transform
    device: torch.device
    episodes: int
    rows: int | None = None
    seed: int = 0
    folder: Path | None = None
    warn: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class ReplayWishes:
    """What a run wants of its replay; each world reads what concerns it.

    Attributes:
        batch_size: Rows per batch.
        device: Where batches are.
        seed: Seeds the order of rows.
        borders: Whether the learner knows the current task.
        capacity: Transitions kept.
        discount, nstep: Of the returns that transitions are folded into.
        stack: Frames per observation.
        storage: "ram", "gpu" or "disk", the latter in `folder`.
        sequence: Steps per row; None: single transitions.
        priorities: Arguments of `Prioritized`; None: transitions are drawn uniformly.
        before: Makes of a batch the one that is given, as rehearsal does; None: nothing.
        saved: Transitions of an earlier run to learn from; None: those that this run makes.
    """

    batch_size: int
    device: torch.device
    seed: int
    borders: bool = True
    capacity: int = 1_000_000
    discount: float = 0.99
    nstep: int = 1
    stack: int = 1
    storage: str = "ram"
    folder: str | None = None
    sequence: int | None = None
    priorities: dict[str, Any] | None = None
    before: Callable[[Batch], Batch] | None = None
    saved: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Lengths:
    """How long each task is, and how often what happens in it.

    A step is a learning step on data, and an environment step in environments.

    Attributes:
        epochs: Passes over each task's data; None: by steps alone.
        train_steps: Steps per task; None: by epochs alone.
        eval_every: Steps between evaluations; None: every epoch, of a single task.
        learn_every: Steps per learning step.
        seed_steps: Steps before a task's first learning step.
    """

    epochs: int | None = None
    train_steps: int | None = None
    eval_every: int | None = None
    learn_every: int = 1
    seed_steps: int = 0


@dataclass(frozen=True)
class TaskLength:
    """How many learning steps a task is long.

    Attributes:
        steps: Learning steps at most; None: by epochs alone.
        epochs: Passes over the data at most; None: by steps alone.
        batches: Batches per epoch; None: there are no epochs.
    """

    steps: int | None
    epochs: int | None
    batches: int | None

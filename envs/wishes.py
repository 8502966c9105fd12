"""What a run asks of its world: a replay, evaluations, the lengths of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..replay import Batch
from .transform import Transform

ENV_STEPS = 50_000  # Default of `train_steps`: steps in each environment.


@dataclass(frozen=True)
class Evaluation:
    """How a run evaluates.

    Attributes:
        transform: Turns stored fields into what the model receives, without augmentation.
        device: Where the model is.
        episodes: Number of episodes per evaluation of an environment; 0: no evaluation.
        rows: Most held-out rows per task, always the same ones; None: all.
        seed: Seeds the sample of rows.
        folder: Where videos go; None: nowhere.
        warn: Called with a warning about an evaluation.
        poll: Called between batches and between steps; raises to leave the evaluation.
    """

    transform: Transform
    device: torch.device
    episodes: int
    rows: int | None = None
    seed: int = 0
    folder: Path | None = None
    warn: Callable[[str], None] = lambda _: None
    poll: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class ReplayWishes:
    """What a run asks of its replay; each world reads the part that applies to it.

    Attributes:
        batch_size: Rows per batch.
        device: Where batches are delivered.
        seed: Seeds the order of rows.
        borders: Whether the learner knows the current task.
        capacity: Most transitions stored.
        discount, nstep: Discount in [0, 1], and number of rewards, of n-step returns.
        stack: Frames per observation.
        storage: "ram", "gpu" or "disk", the latter in `folder`.
        sequence: Steps per row; None: single transitions.
        priorities: Arguments of `Prioritized`; None: transitions are drawn uniformly.
        before: Maps each batch to the one delivered, as rehearsal does; None: batches stay the same.
        saved: Transitions of an earlier run to learn from; None: this run collects its own.
        window: Rows of a data set among which the next ones are drawn; 0: all.
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
    window: int = 0


@dataclass(frozen=True)
class Lengths:
    """The length of each task, and the intervals of what happens in it.

    A step is a learning step on data, and an environment step in environments.

    Attributes:
        epochs: Passes over each task's data; None: limited by steps alone.
        train_steps: Steps per task; None: limited by epochs alone.
        eval_every: Steps between evaluations; None: once per epoch, if there is one task.
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
    """The length of a task in learning steps.

    Attributes:
        steps: Most learning steps; None: limited by epochs alone.
        epochs: Most passes over the data; None: limited by steps alone.
        batches: Batches per epoch; None: there are no epochs.
    """

    steps: int | None
    epochs: int | None
    batches: int | None

"""Strategies that decide which rows a full `Buffer` replaces, and which it declines.

A strategy is called for each row in turn: `select(buffer, label)` returns the row's place in the buffer, or
-1 if it is declined. While there is room, the buffer adds every row.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ...replay import ConfigError

NAMES = ("reservoir", "lars", "labrs", "abs", "balancoir", "unlimited")


class Held(Protocol):
    """The part of a buffer that a strategy reads.

    Attributes:
        capacity: int, rows at most.
        seen: int, rows offered so far.
        labels: int64 `[N]`, labels of the stored rows.
        choices: Random stream that decides which rows are stored.
    """

    capacity: int
    seen: int

    @property
    def labels(self) -> Tensor: ...

    @property
    def choices(self) -> np.random.Generator: ...


class Bounds(Protocol):
    """The sequence of tasks, which knows the classes of each."""

    def get_offsets(self, task: int | None = None) -> tuple[int, int]: ...


class Selection:
    """A uniform sample of the stream (Vitter, 1985), and the base class of the other strategies."""

    scored = False  # Whether rows need a score.
    labelled = False  # Whether rows need a label.

    def select(self, buffer: Held, label: int) -> int:
        """The place in a full buffer for a row with this label."""
        place = int(buffer.choices.integers(buffer.seen + 1))
        return place if place < buffer.capacity else -1

    def update(self, indexes: Tensor | int, values: Tensor | float) -> None:
        """Change the scores of the rows at these places; has no effect where rows have none.

        Args:
            indexes: int64 `[B]`, places in the buffer.
            values: float32 `[B]`, their new scores.
        """

    def state(self) -> Tensor | None:
        """The scores to be saved beside the rows, float32 `[size]`; None where there are none."""
        return None

    def load(self, state: Tensor | None) -> None:
        """Restore what `state` returned."""


class LossAware(Selection):
    """Replaces rows of low loss first: loss-aware reservoir sampling.

    Source: Buzzega et al. (2020), "Rethinking Experience Replay", arXiv 2010.05595. Scores are
    negative losses; the higher the score, the likelier a row is to be replaced.

    Args:
        size: int, capacity of the buffer in rows.

    Attributes:
        importance_scores: float32 `[size]`, score of the row at each place.
    """

    scored = True

    def __init__(self, size: int):
        # On the host, where choices are made.
        self.importance_scores = torch.full((size,), -torch.inf)

    def update(self, indexes: Tensor | int, values: Tensor | float) -> None:
        scores = self.importance_scores
        if isinstance(values, Tensor):
            values = values.detach().to(scores)
        scores[indexes.to(scores.device) if isinstance(indexes, Tensor) else indexes] = values

    def select(self, buffer: Held, label: int) -> int:
        if int(buffer.choices.integers(buffer.seen)) >= buffer.capacity:
            return -1
        return self.given_up(buffer)

    def given_up(self, buffer: Held) -> int:
        """The place of the row to replace."""
        return _drawn(buffer, _spread(self.importance_scores))

    def state(self) -> Tensor | None:
        return self.importance_scores

    def load(self, state: Tensor | None) -> None:
        if state is not None:
            self.importance_scores = state.clone()


class LossAwareBalanced(LossAware):
    """Replaces rows of low loss, and of classes with many rows, first: `labrs` in the same paper."""

    labelled = True

    def given_up(self, buffer: Held) -> int:
        _, which, counts = buffer.labels.unique(return_inverse=True, return_counts=True)
        balance = counts[which].to(self.importance_scores)
        scale = self.importance_scores.abs().mean() * balance.abs().mean()
        importance = self.importance_scores / scale if scale > 0 else self.importance_scores
        return _drawn(buffer, _spread(0.5 * importance + 0.5 * balance))


class AlternateBalanced(LossAware):
    """Replaces rows of high loss in the current task, and of low loss in earlier ones: for noisy labels.

    Source: Millunzi et al. (2024), "May the Forgetting Be with You", arXiv 2408.14284. Which of the two
    loses a row is drawn in proportion to their shares of the buffer. Scores are losses.

    Args:
        size: int, capacity of the buffer in rows.
        dataset: The sequence of tasks, which knows where the current task's classes begin.
    """

    labelled = True

    def __init__(self, size: int, dataset: Bounds):
        super().__init__(size)
        self.dataset = dataset

    def given_up(self, buffer: Held) -> int:
        first, _ = self.dataset.get_offsets()
        past = (buffer.labels < first).to(self.importance_scores.device)
        if float(buffer.choices.random()) < float(past.double().mean()):
            of, weights = past, 1 - _spread(self.importance_scores[past])
        else:
            of, weights = ~past, _spread(self.importance_scores[~past])
        places = of.nonzero().flatten()
        return int(places[_drawn(buffer, weights)])


class Balanced(Selection):
    """Replaces rows of the largest class, and accepts every row of a small class: `balancoir`.

    Source: Buzzega et al. (2020), arXiv 2010.05595, balanced reservoir sampling.
    """

    labelled = True

    def select(self, buffer: Held, label: int) -> int:
        labels = buffer.labels.cpu().numpy()
        counts = np.bincount(labels, minlength=label + 1)
        drawn = int(buffer.choices.integers(buffer.seen + 1))
        if drawn >= buffer.capacity and counts[label] >= np.median(counts[counts > 0]):
            return -1
        largest = np.flatnonzero(labels == counts.argmax())
        return int(largest[drawn % len(largest)])


def make_selection(name: str, size: int, dataset: Bounds | None = None) -> Selection:
    """The strategy of that name.

    Raises:
        ConfigError: If `abs` lacks the data set, which knows the tasks.
    """
    if name == "abs":
        if dataset is None:
            raise ConfigError(
                "Buffer: sample_selection_strategy='abs' needs dataset=..., which tells where a task's "
                "classes begin."
            )
        return AlternateBalanced(size, dataset)
    if name == "lars":
        return LossAware(size)
    if name == "labrs":
        return LossAwareBalanced(size)
    return Balanced() if name == "balancoir" else Selection()


def _spread(scores: Tensor) -> Tensor:
    """Scores `[N]` scaled to [0, 1], or ones where all are equal."""
    if not len(scores):
        return scores
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if bool(high > low) else torch.ones_like(scores)


def _drawn(buffer: Held, weights: Tensor) -> int:
    """A place in the buffer, drawn in proportion to these weights, `[N]`."""
    # In float64: NumPy refuses probabilities whose sum is not 1 to about 1e-8.
    chances = weights.double().cpu().numpy()
    total = chances.sum()
    chances = chances / total if total > 0 else np.full(len(chances), 1 / len(chances))
    return int(buffer.choices.choice(len(chances), p=chances))

"""How long a task is for a schedule of learning rates."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ...replay import Replay


@dataclass(frozen=True)
class Duration:
    """How long a task is, as far as the settings say.

    Attributes:
        steps: Learning steps at most; None: by epochs alone.
        epochs: Passes over the data at most; None: by steps alone.
        batches_per_epoch: None for what has no epochs.
        accumulate: Learning steps per update.
    """

    steps: int | None
    epochs: int | None
    batches_per_epoch: int | None
    accumulate: int = 1

    @property
    def learning_steps(self) -> int:
        bounds = [] if self.steps is None else [self.steps]
        if self.epochs is not None and self.batches_per_epoch is not None:
            bounds.append(self.epochs * self.batches_per_epoch)
        return min(bounds)

    def length(self, every: str) -> int:
        """Epochs or updates of the task, the last of which may be incomplete."""
        one = self.batches_per_epoch if every == "epoch" else self.accumulate
        assert one is not None
        return max(1, math.ceil(self.learning_steps / max(1, one)))

    def of(self, replay: Replay) -> Duration:
        """The duration of the task that the replay holds now, whose rows a strategy may have chosen."""
        if self.batches_per_epoch is None:
            return self
        return replace(self, batches_per_epoch=replay.batches_per_epoch)

"""Early stopping: evaluates the current task, ends it, and restores its best weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...envs.world import World
from ...replay.devices import moving
from ..metrics import better, score_names
from ..record.packing import copied
from ..record.progress import Progress
from ..record.state.growth import layout
from .learner import Learner

# Not restored: step counts, and what the learner has observed of the model.
_GOES_ON = ("steps", "optimised", "unreached", "pending", "gradients")


@dataclass(frozen=True)
class Watched:
    """A metric to follow: its name, and whether more of it is better."""

    name: str
    more: bool


class EarlyStopping:
    """Monitors the current task only: forgetting earlier tasks does not end it.

    Where a strategy learns several tasks' data together (joint, cumulative), monitors their mean.

    Restoring the best weights restores the whole learner: buffers, averaged weights, the optimiser's and
    strategies' state, and an environment's normalisation. The end of a task is processed afterwards, as if
    learning had stopped there.

    Args:
        patience: Evaluations without improvement after which a task ends; None: it never ends early.
        restore: Whether a task ends with its best weights.
        watched: The metric that is followed; None: the loss, or the return.
    """

    def __init__(
        self,
        world: World,
        learner: Learner,
        *,
        patience: int | None,
        restore: bool,
        watched: Watched | None = None,
    ):
        self.world, self.learner = world, learner
        self.patience, self.restore, self.watched = patience, restore, watched

    def look(self, at: Progress, metrics: Mapping[str, float]) -> None:
        """Compare an evaluation of the current task with the best one so far.

        Args:
            metrics: Metrics of the task's own rows or episodes, by name.
        """
        value = self._value(metrics)
        if value is None or not (self.restore or self.patience is not None):
            return
        if at.best_state is not None and at.best_state["layout"] != layout(self.learner.agent):
            at.forget_best()  # Belongs to a model with other parameters, and no longer fits.
        if at.best is None or value > at.best or (at.best != at.best and value == value):
            at.best, at.waited = value, 0
            if self.restore:
                at.best_state = copied(self._state())
            return
        at.waited += 1
        at.stopped = self.patience is not None and at.waited >= self.patience

    def go_back(self, at: Progress) -> None:
        """Restore the best weights after the task's last evaluation, unless the model has them already."""
        best, at.best_state = at.best_state, None
        if best is None or at.waited == 0:
            return
        learner = self.learner
        known = {"steps": learner.steps, "optimised": learner.optimised}
        with moving(learner.device, learner.device):
            learner.load_state_dict({**known, **best["learner"]})
        if self.world.normalizer is not None:
            self.world.normalizer.load_state_dict(best["normalizer"])

    def _value(self, metrics: Mapping[str, float]) -> float | None:
        """The monitored metric, negated if lower is better."""
        if (watched := self.watched) is not None:
            value = metrics.get(watched.name)
            return value if value is None or watched.more else -value
        # The loss still moves when accuracy is constant, and is the first to rise when a model overfits.
        names = score_names(told=self.world.told, loss_first=True)
        name = next((name for name in names if name in metrics), None)
        if name is None:
            return None
        return metrics[name] if better(name) == "more" else -metrics[name]

    def _state(self) -> dict[str, Any]:
        normalizer = self.world.normalizer
        learner = self.learner.state_dict()
        return {
            "layout": layout(self.learner.agent),
            "learner": {name: part for name, part in learner.items() if name not in _GOES_ON},
            "normalizer": None if normalizer is None else normalizer.state_dict(),
        }

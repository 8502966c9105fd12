"""The data of all tasks so far: the upper bound for a learner that may keep everything."""

from __future__ import annotations

from torch import nn

from ...replay import Replay
from .strategy import Strategy


class Cumulative(Strategy):
    """Learn each task together with all the data of earlier tasks."""

    owns = frozenset({"data"})
    needs_borders = True

    def begin_task(self, agent: nn.Module, replay: Replay) -> None:
        replay.use_tasks(range(replay.task + 1))

"""All tasks at once: the upper bound."""

from __future__ import annotations

from torch import nn

from ...replay import Replay
from .strategy import Strategy


class Joint(Strategy):
    """Learn the data of all tasks together, in the first task; nothing is left for the others."""

    owns = frozenset({"data"})
    no_environments = (
        "environments are learnt in turn; strategy=cumulative keeps the transitions of all of them"
    )
    needs_all_tasks = True
    needs_borders = True

    def begin_task(self, agent: nn.Module, replay: Replay) -> None:
        replay.use_tasks(range(replay.num_tasks) if replay.task == 0 else ())

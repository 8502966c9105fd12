"""Where a run is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Progress:
    """Where the run is: everything the loop itself must know to continue.

    Attributes:
        task: The current task; the number of tasks once all are done.
        task_step, step: Steps in this task, and in all.
        begun: Whether the current task has begun.
        stopped: Whether this task was ended early.
        best, waited: The best score of this task, and evaluations since.
        evaluated: The step of the newest evaluation.
        matrix: Row i: the score on every task after task i was learnt.
        metrics: The newest evaluation.
    """

    task: int = 0
    task_step: int = 0
    step: int = 0
    begun: bool = False
    stopped: bool = False
    best: float | None = None
    waited: int = 0
    evaluated: int = -1
    matrix: list[list[float]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def begin_task(self) -> None:
        self.begun, self.stopped, self.task_step, self.best, self.waited = True, False, 0, None, 0

    def end_task(self) -> None:
        self.task, self.begun = self.task + 1, False

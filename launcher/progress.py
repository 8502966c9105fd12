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
        evaluated: The step and task of the newest evaluation, and whether of rows set aside.
        matrix: Row i: the score on every task after task i was learnt.
        task_il: The same with the task told, where that is another score; else empty.
        baseline: The score on every task before any learning, of the scenario's own kind.
        metrics: The newest evaluation.
    """

    task: int = 0
    task_step: int = 0
    step: int = 0
    begun: bool = False
    stopped: bool = False
    best: float | None = None
    waited: int = 0
    evaluated: list[Any] = field(default_factory=list)
    matrix: list[list[float]] = field(default_factory=list)
    task_il: list[list[float]] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def begin_task(self) -> None:
        self.begun, self.stopped, self.task_step, self.best, self.waited = True, False, 0, None, 0

    def end_task(self) -> None:
        self.task, self.begun = self.task + 1, False

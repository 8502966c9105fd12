"""Where a run is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

_MATRICES = ("matrix", "task_il")


@dataclass
class Progress:
    """Where the run is: everything the loop itself must know to continue.

    Attributes:
        task: The current task; the number of tasks once all are done.
        task_step, step: Steps in this task, and in all.
        begun: Whether the current task has begun.
        stopped: Whether this task was ended early.
        best, waited: The best score of this task, and evaluations since.
        best_state: The learner's state then, if it is to be restored at the end of the task.
        matrix: Row i: the score on each task after learning task i; NaN where it was not evaluated.
        task_il: The same with the task known, if that differs; else empty.
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
    best_state: dict[str, Any] | None = None
    matrix: list[list[float]] = field(default_factory=list)
    task_il: list[list[float]] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        state = {known.name: getattr(self, known.name) for known in fields(self)}
        # As arrays: two hundred tasks have eighty thousand scores, which take long as text.
        return state | {name: _as_array(state[name]) for name in _MATRICES}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        known = {name: value for name, value in state.items() if hasattr(self, name)}
        self.__dict__.update(known | {name: _as_rows(known[name]) for name in _MATRICES})

    def own_matrix(self, *, told: bool) -> list[list[float]]:
        """The scores that the scenario is about, `[tasks learnt][tasks]`: task-IL if the task is told."""
        return self.task_il if told and self.task_il else self.matrix

    def place(self, epoch: int) -> dict[str, int]:
        """What every row begins with: the step, the epoch of the current task, and the task."""
        return {"step": self.step, "epoch": epoch, "task": self.task}

    def begin_task(self) -> None:
        self.begun, self.stopped, self.task_step = True, False, 0
        self.forget_best()

    def end_task(self) -> None:
        self.task, self.begun = self.task + 1, False
        self.forget_best()

    def widen(self, tasks: int) -> None:
        """Add columns up to this many tasks, filled with NaN."""
        for row in (*self.matrix, *self.task_il, *([self.baseline] if self.baseline else ())):
            row += [math.nan] * (tasks - len(row))

    def forget_best(self) -> None:
        """Discard earlier evaluations of the task."""
        self.best, self.waited, self.best_state = None, 0, None


def _as_array(rows: Sequence[Sequence[float]]) -> np.ndarray:
    """float64 `[rows, tasks]`, NaN where a row ends early."""
    array = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for i, row in enumerate(rows):
        array[i, : len(row)] = row
    return array


def _as_rows(matrix: np.ndarray | Sequence[Sequence[float]]) -> list[list[float]]:
    """Lists of numbers: those of an array, or of a checkpoint before 0.5.0."""
    # A single NaN object, so that equal matrices compare equal.
    return [[x if x == x else math.nan for x in map(float, row)] for row in matrix]

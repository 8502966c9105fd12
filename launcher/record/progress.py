"""The progress of a run: steps, tasks and scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_MATRICES = ("matrix", "task_il")


@dataclass
class Progress:
    """Everything that the loop itself must know to continue.

    Attributes:
        task: The current task; the number of tasks once all are done.
        task_step: Steps in this task: learning steps on data and offline, otherwise environment steps.
        step: The same over all tasks.
        shift: How far `task_step` is ahead of the batches that the sampler has drawn, after a resume with
            another batch size or other data.
        begun: Whether the current task has begun.
        stopped: Whether this task was ended early.
        best: The best score of this task, or None.
        waited: Number of evaluations since.
        owes: What a signal cut short at this step, to be done again after a resume: "evaluation" in
            mid-task, or "scores" of a task that the learner has ended; empty: nothing.
        rollbacks: How often the run went back to a checkpoint (`on_nan=rollback`).
        best_state: The learner's state at the best score, if the task ends by restoring it.
        matrix: Row i: the score on each task after learning task i; NaN where it was not evaluated.
        task_il: The same with the task known, if that differs; else empty.
        baseline: The score on every task before any learning, of the scenario's own kind.
        metrics: The newest evaluation, by the name of the metric.
    """

    task: int = 0
    task_step: int = 0
    step: int = 0
    shift: int = 0
    begun: bool = False
    stopped: bool = False
    best: float | None = None
    waited: int = 0
    owes: str = ""
    rollbacks: int = 0
    best_state: dict[str, Any] | None = None
    matrix: list[list[float]] = field(default_factory=list)
    task_il: list[list[float]] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        state = dict(vars(self))
        # As arrays: two hundred tasks have eighty thousand scores, which are slow to write as text.
        return state | {name: _as_array(state[name]) for name in _MATRICES}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        known = {name: value for name, value in state.items() if name in vars(self)}
        self.__dict__.update(known | {name: _as_rows(known[name]) for name in _MATRICES})

    @property
    def epoch_step(self) -> int:
        """`task_step` in batches of today's size, by which epochs are counted."""
        return self.task_step - self.shift

    @property
    def newest_task(self) -> int:
        """The task in progress; between two tasks, the one that was just learnt."""
        return self.task if self.begun else max(0, self.task - 1)

    def own_matrix(self, *, told: bool) -> list[list[float]]:
        """The scores that the scenario reports, `[tasks learnt][tasks]`.

        Args:
            told: Whether the model knows the task, and so task-IL counts.
        """
        return self.task_il if told and self.task_il else self.matrix

    def place(self, epoch: int) -> dict[str, int]:
        """The first columns of every row.

        Args:
            epoch: Passes over the current task's data.
        """
        return {"step": self.step, "epoch": epoch, "task": self.newest_task}

    def begin_task(self) -> None:
        self.begun, self.stopped, self.owes = True, False, ""
        self.task_step = self.shift = 0
        self.forget_best()

    def end_task(self) -> None:
        self.task, self.begun, self.owes = self.task + 1, False, ""
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
    """Lists of numbers from an array, or from the lists of a checkpoint before 0.5.0."""
    # A single NaN object, so that equal matrices compare equal.
    return [[x if x == x else math.nan for x in map(float, row)] for row in matrix]

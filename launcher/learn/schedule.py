"""How long a run learns, and when there is something to do in between."""

from __future__ import annotations

from dataclasses import dataclass

from ...replay import Replay
from ..record.progress import Progress


@dataclass(frozen=True)
class Schedule:
    """How long each task is, and how often there is what to do.

    A step is a learning step on data and offline, and an environment step in environments.

    Attributes:
        epochs: Passes over each task's data; None: by steps alone.
        train_steps: Steps per task; None: by epochs alone.
        eval_every: Steps between evaluations; None: every epoch, of a single task or where they
            decide when it ends.
        learn_every: Environment steps per learning step.
        seed_steps: Environment steps before a task's first learning step.
        log_every: Steps per row of train.csv.
        patience: Evaluations without improvement after which a task ends, or None.
        restore: Whether a task ends with its best weights.
        eval_future: Whether later tasks are evaluated.
        borders: Whether the learner knows where tasks end.
        validation: Whether evaluations before a task's end use rows set aside for them.
    """

    epochs: int | None
    train_steps: int | None
    eval_every: int | None
    learn_every: int
    seed_steps: int
    log_every: int
    patience: int | None
    borders: bool = True
    validation: bool = False
    restore: bool = False
    eval_future: bool = False

    @property
    def judges(self) -> bool:
        """Whether evaluations in mid-task decide when it ends, or with which weights."""
        return self.patience is not None or self.restore

    def over(self, progress: Progress, replay: Replay) -> bool:
        """Whether the current task has had its share."""
        if progress.stopped:
            return True
        if self.train_steps is not None and progress.task_step >= self.train_steps:
            return True
        if not replay.environments and len(replay) == 0:
            return True  # A strategy has taken all tasks away: there is nothing to learn.
        if self.epochs is None:
            return False
        # The second bound ends a model that never calls next(replay).
        limit = self.epochs * replay.batches_per_epoch
        return replay.passes >= self.epochs or progress.task_step >= limit

    def learning_steps(self, progress: Progress, taken: int) -> int:
        """Learning steps that follow on `taken` steps, by which `progress` has advanced already."""
        if progress.task_step < self.seed_steps:
            return 0
        # Of the whole run, not of these steps: several environments may be stepped at once.
        return progress.step // self.learn_every - (progress.step - taken) // self.learn_every

    def row_due(self, progress: Progress, taken: int) -> bool:
        """Whether a row of train.csv follows on `taken` steps."""
        return progress.step % self.log_every < taken

    def evaluation_due(
        self, progress: Progress, taken: int, replay: Replay, *, single: bool
    ) -> bool:
        """Whether an evaluation follows on `taken` steps; the end of a task is evaluated besides.

        Args:
            single: Whether the task is the only one.
        """
        if self.eval_every is not None:
            due = progress.step % self.eval_every < taken
        elif self.judges or (single and self.epochs is not None):
            due = progress.task_step % replay.batches_per_epoch == 0
        else:
            return False
        return due and not self.over(progress, replay)

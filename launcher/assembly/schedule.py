"""How long a run is, and each of its tasks, and how often there is something to do."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

from ...envs.wishes import Lengths
from ...envs.world import World
from ...replay import Replay
from ...replay.samplers import batch_sizes
from ..settings.plan import Plan


class Place(Protocol):
    """How far a run is."""

    @property
    def step(self) -> int:
        """Steps so far."""

    @property
    def task_step(self) -> int:
        """Steps of the current task so far."""

    @property
    def stopped(self) -> bool:
        """Whether the current task was ended early."""


@dataclass(frozen=True)
class Schedule:
    """How long, and how often what happens.

    A step is a learning step on data and offline, and an environment step in environments.

    Attributes:
        epochs: Passes over each task's data; None: by steps alone.
        train_steps: Steps per task; None: by epochs alone.
        eval_every: Steps between evaluations; None: every epoch, of a single task or where they
            decide over its end.
        learn_every, seed_steps: Environment steps per learning step, and before a task's first.
        log_every: Steps per row of train.csv.
        patience: Evaluations without improvement after which a task ends, or None.
        restore: Whether a task ends with its best weights.
        eval_future: Whether later tasks are evaluated.
        borders: Whether the learner is told where tasks end.
        validation: Whether evaluations before a task's end are of rows set aside for it.
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

    def over(self, at: Place, replay: Replay) -> bool:
        """Whether the current task has had its share."""
        if at.stopped or (self.train_steps is not None and at.task_step >= self.train_steps):
            return True
        if not replay.environments and len(replay) == 0:
            return True
        if self.epochs is None:
            return False
        # The second bound ends a model that never calls next(replay).
        limit = self.epochs * replay.batches_per_epoch
        return replay.passes >= self.epochs or at.task_step >= limit

    def evaluation_due(self, at: Place, taken: int, replay: Replay, *, single: bool) -> bool:
        """Whether an evaluation follows the last `taken` steps.

        Args:
            single: Whether there is a single task.
        """
        if self.eval_every is not None:
            return at.step % self.eval_every < taken
        each_epoch = self.judges or (single and self.epochs is not None)
        return each_epoch and at.task_step % replay.batches_per_epoch == 0

    def learning_steps(self, at: Place, taken: int) -> int:
        """Learning steps that `taken` steps are followed by."""
        if at.task_step < self.seed_steps:
            return 0
        return at.step // self.learn_every - (at.step - taken) // self.learn_every


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
        """Learning steps of the task, if it does not end early."""
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


def build_schedule(plan: Plan, world: World) -> Schedule:
    """How long, and how often."""
    return Schedule(
        **vars(world.lengths(asked_lengths(plan))),
        log_every=plan.log_every,
        patience=plan.early_stopping.patience,
        borders=world.borders(online=plan.online),
        validation=world.validates,
        restore=plan.early_stopping.restore,
        eval_future=plan.eval_future,
    )


def asked_lengths(plan: Plan) -> Lengths:
    """What the settings say, before a world completes it."""
    return Lengths(
        plan.epochs,
        plan.train_steps,
        plan.eval_every,
        plan.learn_every or 1,
        plan.seed_steps or 0,
    )


def build_durations(schedule: Schedule, plan: Plan, world: World) -> list[Duration]:
    """How long each task is for a scheduler; a single duration where tasks are not told apart."""
    tasks = world.task_lengths(
        lengths_of(schedule), batch_size=plan.batch_size, offline=plan.offline is not None
    )
    durations = [Duration(t.steps, t.epochs, t.batches, plan.accumulate) for t in tasks]
    if schedule.borders:
        return durations
    steps = schedule.train_steps and schedule.train_steps * len(durations)
    batches = sum(duration.batches_per_epoch or 0 for duration in durations)
    return [Duration(steps, schedule.epochs, batches, plan.accumulate)]


def lengths_of(schedule: Schedule) -> Lengths:
    """What a world needs to know of the schedule."""
    return Lengths(
        schedule.epochs,
        schedule.train_steps,
        schedule.eval_every,
        schedule.learn_every,
        schedule.seed_steps,
    )


def duration_of(rows: int, schedule: Schedule, plan: Plan) -> Duration:
    """How long a task of so many rows is for a scheduler."""
    batches = len(batch_sizes(rows, plan.batch_size))
    return Duration(schedule.train_steps, schedule.epochs, batches, plan.accumulate)


def evaluates_in_task(
    schedule: Schedule, durations: list[Duration], plan: Plan, world: World
) -> bool:
    """Whether there is an evaluation before the end of a task."""
    if schedule.eval_every is None:
        each_epoch = schedule.judges or (len(world.tasks) == 1 and schedule.epochs is not None)
        return each_epoch and any(duration.length("epoch") > 1 for duration in durations)
    return schedule.eval_every < total_steps(schedule, plan, world)


def total_steps(schedule: Schedule, plan: Plan, world: World) -> int:
    """Steps of the whole run, if no task ends early."""
    return world.steps(lengths_of(schedule), batch_size=plan.batch_size)

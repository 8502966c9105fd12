"""The lengths of a run and its tasks, and the intervals of learning, logging and evaluating."""

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
    """How far a run has come."""

    @property
    def step(self) -> int:
        """Steps so far."""

    @property
    def task_step(self) -> int:
        """Steps of the current task so far."""

    @property
    def epoch_step(self) -> int:
        """The same in batches of today's size."""

    @property
    def stopped(self) -> bool:
        """Whether the current task was ended early."""


@dataclass(frozen=True)
class Schedule:
    """How long a task lasts, and how often each thing happens.

    A step is a learning step on data and offline, and an environment step in environments.

    Attributes:
        epochs: Passes over each task's data; None: limited by steps only.
        train_steps: Steps per task; None: limited by epochs only.
        eval_every: Steps between evaluations; None: every epoch, if there is a single task or
            evaluations decide when it ends.
        learn_every, seed_steps: Environment steps per learning step, and before a task's first one.
        log_every: Steps per row of train.csv.
        patience: Evaluations without improvement after which a task ends, or None.
        restore: Whether a task ends with its best weights.
        eval_future: Whether tasks that are not learnt yet are evaluated too.
        borders: Whether the learner knows where tasks end.
        validation: Whether evaluations before a task's end use rows held out of its training data.
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
    def decides_by_evaluations(self) -> bool:
        """Whether evaluations within a task decide when it ends, or with which weights."""
        return self.patience is not None or self.restore

    def over(self, at: Place, replay: Replay) -> bool:
        """Whether the current task is over."""
        if at.stopped or (self.train_steps is not None and at.task_step >= self.train_steps):
            return True
        # `joint` learns all data in the first task, which leaves the later ones without rows.
        if not replay.environments and len(replay) == 0:
            return True
        if self.epochs is None:
            return False
        # The second bound ends a model that never calls next(replay).
        limit = self.epochs * replay.batches_per_epoch
        return replay.passes >= self.epochs or at.epoch_step >= limit

    def evaluation_due(self, at: Place, taken: int, replay: Replay, *, single: bool) -> bool:
        """Whether an evaluation is due after the last `taken` steps.

        Args:
            taken: Steps taken since the last call.
            single: Whether there is a single task.
        """
        if self.eval_every is not None:
            # Several environments step at once, so a multiple may lie inside the last steps.
            return at.step % self.eval_every < taken
        each_epoch = self.decides_by_evaluations or (single and self.epochs is not None)
        return each_epoch and at.epoch_step % replay.batches_per_epoch == 0

    def learning_steps(self, at: Place, taken: int) -> int:
        """The number of learning steps due after the last `taken` environment steps."""
        if at.task_step < self.seed_steps:
            return 0
        # Counted over the whole run, so that a remainder carries over to the next call.
        return at.step // self.learn_every - (at.step - taken) // self.learn_every


@dataclass(frozen=True)
class Duration:
    """The planned length of a task, which may end early.

    Attributes:
        steps: Learning steps at most; None: limited by epochs only.
        epochs: Passes over the data at most; None: limited by steps only.
        batches_per_epoch: Learning steps per epoch; None in environments, which have no epochs.
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
        # A task without rows has epochs without batches.
        return max(1, math.ceil(self.learning_steps / max(1, one)))

    def of(self, replay: Replay) -> Duration:
        """The duration for the rows that the replay holds now, which a strategy may have chosen."""
        if self.batches_per_epoch is None:
            return self
        return replace(self, batches_per_epoch=replay.batches_per_epoch)


def build_schedule(plan: Plan, world: World) -> Schedule:
    """The schedule that the plan asks for, completed by the world's defaults."""
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
    """The lengths that the plan states, before a world completes them."""
    return Lengths(
        plan.epochs,
        plan.train_steps,
        plan.eval_every,
        plan.learn_every or 1,
        plan.seed_steps or 0,
    )


def build_durations(schedule: Schedule, plan: Plan, world: World) -> list[Duration]:
    """Each task's duration, for a scheduler; a single one for a stream without task boundaries."""
    tasks = world.task_lengths(
        lengths_of(schedule), batch_size=plan.batch_size, offline=plan.offline is not None
    )
    durations = [Duration(t.steps, t.epochs, t.batches, plan.accumulate) for t in tasks]
    if schedule.borders:
        return durations
    # A scheduler that restarted with a task would reveal the boundary.
    steps = schedule.train_steps and schedule.train_steps * len(durations)
    batches = sum(duration.batches_per_epoch or 0 for duration in durations)
    return [Duration(steps, schedule.epochs, batches, plan.accumulate)]


def lengths_of(schedule: Schedule) -> Lengths:
    """The part of the schedule that a world needs to know."""
    return Lengths(
        schedule.epochs,
        schedule.train_steps,
        schedule.eval_every,
        schedule.learn_every,
        schedule.seed_steps,
    )


def duration_of(rows: int, schedule: Schedule, plan: Plan) -> Duration:
    """The duration of a task, for a scheduler.

    Args:
        rows: Number of rows of the task's training data.
    """
    batches = len(batch_sizes(rows, plan.batch_size))
    return Duration(schedule.train_steps, schedule.epochs, batches, plan.accumulate)


def evaluates_in_task(
    schedule: Schedule, durations: list[Duration], plan: Plan, world: World
) -> bool:
    """Whether there is an evaluation before the end of a task."""
    if schedule.eval_every is None:
        each_epoch = schedule.decides_by_evaluations or (
            len(world.tasks) == 1 and schedule.epochs is not None
        )
        return each_epoch and any(duration.length("epoch") > 1 for duration in durations)
    return schedule.eval_every < total_steps(schedule, plan, world)


def total_steps(schedule: Schedule, plan: Plan, world: World) -> int:
    """Steps of the whole run, if no task ends early."""
    return world.steps(lengths_of(schedule), batch_size=plan.batch_size)

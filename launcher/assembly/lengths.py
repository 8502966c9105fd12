"""How long a run is, and each of its tasks, and how often there is something to do."""

from __future__ import annotations

from ...envs.world import Lengths, World
from ...replay.samplers import batch_sizes
from ..learn.loop import Schedule
from ..settings.plan import Plan
from .durations import Duration


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

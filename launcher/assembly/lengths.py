"""How long a run is, and each of its tasks, and how often there is something to do."""

from __future__ import annotations

from ...envs.world import Lengths, World
from ...replay.samplers import batch_sizes
from ..learn.loop import Schedule
from ..learn.schedulers import Plan
from ..settings.compose import Settings


def build_schedule(settings: Settings, world: World) -> Schedule:
    """How long, and how often."""
    return Schedule(
        **vars(world.lengths(asked_lengths(settings))),
        log_every=settings.log_every,
        patience=settings.early_stopping["patience"],
        borders=world.borders(online=settings.online),
        validation=world.validates,
        restore=settings.early_stopping["restore"],
        eval_future=settings.eval_future,
    )


def asked_lengths(settings: Settings) -> Lengths:
    """What the settings say, before a world completes it."""
    return Lengths(
        settings.epochs,
        settings.train_steps,
        settings.eval_every,
        settings.learn_every or 1,
        settings.seed_steps or 0,
    )


def build_plans(schedule: Schedule, settings: Settings, world: World) -> list[Plan]:
    """How long each task is for a scheduler; a single plan where tasks are not told apart."""
    tasks = world.task_lengths(
        lengths_of(schedule),
        batch_size=settings.batch_size,
        offline=settings.offline is not None,
    )
    plans = [Plan(task.steps, task.epochs, task.batches, settings.accumulate) for task in tasks]
    if schedule.borders:
        return plans
    steps = schedule.train_steps and schedule.train_steps * len(plans)
    batches = sum(plan.batches_per_epoch or 0 for plan in plans)
    return [Plan(steps, schedule.epochs, batches, settings.accumulate)]


def lengths_of(schedule: Schedule) -> Lengths:
    """What a world needs to know of the schedule."""
    return Lengths(
        schedule.epochs,
        schedule.train_steps,
        schedule.eval_every,
        schedule.learn_every,
        schedule.seed_steps,
    )


def plan_of(rows: int, schedule: Schedule, settings: Settings) -> Plan:
    """How long a task of so many rows is for a scheduler."""
    batches = len(batch_sizes(rows, settings.batch_size))
    return Plan(schedule.train_steps, schedule.epochs, batches, settings.accumulate)


def evaluates_in_task(
    schedule: Schedule, plans: list[Plan], settings: Settings, world: World
) -> bool:
    """Whether there is an evaluation before the end of a task."""
    if schedule.eval_every is None:
        each_epoch = schedule.judges or (len(world.tasks) == 1 and schedule.epochs is not None)
        return each_epoch and any(plan.length("epoch") > 1 for plan in plans)
    return schedule.eval_every < total_steps(schedule, settings, world)


def total_steps(schedule: Schedule, settings: Settings, world: World) -> int:
    """Steps of the whole run, if no task ends early."""
    return world.steps(lengths_of(schedule), batch_size=settings.batch_size)

"""How long a run is, and each of its tasks, and how often there is something to do."""

from __future__ import annotations

from typing import Any

from ...replay.samplers import batch_sizes
from ..learn.loop import Schedule
from ..settings.plan import Plan
from .durations import Duration

ENV_STEPS = 50_000  # Steps in each environment, if nothing is said.
_EPOCHS = 10
_ENV_EVALUATION = 10_000


def build_schedule(plan: Plan, world: Any) -> Schedule:
    """How long, and how often."""
    on_data = world.on_data
    epochs, train_steps = plan.epochs, plan.train_steps
    eval_every = plan.eval_every
    if on_data and epochs is None and train_steps is None:
        epochs = _EPOCHS
    if not on_data:
        epochs, train_steps = None, train_steps or ENV_STEPS
        eval_every = eval_every or _ENV_EVALUATION
    return Schedule(
        epochs=epochs,
        train_steps=train_steps,
        eval_every=eval_every,
        learn_every=1 if on_data else plan.learn_every,
        seed_steps=0 if on_data else plan.seed_steps,
        log_every=plan.log_every,
        patience=plan.early_stopping.patience,
        borders=not (on_data and plan.online),
        validation=on_data and world.tasks[0].validation is not None,
        restore=plan.early_stopping.restore,
        eval_future=plan.eval_future,
    )


def build_durations(schedule: Schedule, plan: Plan, world: Any) -> list[Duration]:
    """How long each task is for a scheduler; a single duration where tasks are not told apart."""
    accumulate, epochs, steps = plan.accumulate, schedule.epochs, schedule.train_steps
    if not world.on_data:
        every, taken = schedule.learn_every, 1 if plan.offline else world.num_envs
        durations = []
        for task in range(len(world.tasks)):
            share = taken * -(-(steps or 0) // taken)  # Environment steps, all copies at once.
            begin, end = task * share, (task + 1) * share
            # The first step that is learnt after counts whole.
            begin += taken * max(0, -(-schedule.seed_steps // taken) - 1)
            learnt = max(0, end // every - min(begin, end) // every)
            durations.append(Duration(learnt, None, None, accumulate))
        return durations
    batches = [len(batch_sizes(len(task.train), plan.batch_size)) for task in world.tasks]
    if not schedule.borders:
        return [Duration(steps and steps * len(batches), epochs, sum(batches), accumulate)]
    return [duration_of(len(task.train), schedule, plan) for task in world.tasks]


def duration_of(rows: int, schedule: Schedule, plan: Plan) -> Duration:
    """How long a task of so many rows is for a scheduler."""
    batches = len(batch_sizes(rows, plan.batch_size))
    return Duration(schedule.train_steps, schedule.epochs, batches, plan.accumulate)


def evaluates_in_task(schedule: Schedule, durations: list[Duration], world: Any) -> bool:
    """Whether there is an evaluation before the end of a task."""
    if schedule.eval_every is None:
        each_epoch = schedule.judges or (len(world.tasks) == 1 and schedule.epochs is not None)
        return each_epoch and any(duration.length("epoch") > 1 for duration in durations)
    steps = [
        duration.learning_steps if world.on_data else schedule.train_steps or 0
        for duration in durations
    ]
    return schedule.eval_every < sum(steps)


def total_steps(schedule: Schedule, plan: Plan, world: Any) -> int | None:
    """Steps of the whole run, as far as they are known before."""
    if not world.on_data:
        return (schedule.train_steps or 0) * len(world.tasks)
    total = 0
    for task in world.tasks:
        steps = [] if schedule.train_steps is None else [schedule.train_steps]
        if schedule.epochs is not None:
            batches = len(batch_sizes(len(task.train), plan.batch_size))
            steps.append(schedule.epochs * batches)
        total += min(steps)
    return total

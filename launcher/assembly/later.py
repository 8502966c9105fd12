"""Data that arrives after a run has finished: what can be learnt, and how it is read."""

from __future__ import annotations

from ...agents.continual.strategy import Strategy
from ...envs.datasets import Arrays
from ...envs.world import World
from ...replay import ConfigError
from ..learn.learner import Learner
from ..settings.compose import Settings
from ..settings.plan import Plan, make_plan
from .data import read_data


def check_grows(plan: Plan, world: World, learner: Learner, status: str) -> None:
    """Raise ConfigError if a run cannot learn another task.

    Args:
        status: Of the run: only one that is "finished", or "waiting" for this very task, can.
    """
    if status not in ("finished", "waiting"):
        todo = "learn its own tasks first" if status == "open" else "call ml with resume=true"
        raise ConfigError(f"learn_task needs a finished run, and this one is {status}: {todo}.")
    world.growing()
    if plan.online:
        raise ConfigError("learn_task starts a new task, but online=true has no task boundaries.")
    if learner.traits.observes:
        raise ConfigError(
            f"{plan.model.short_name} has an `observe`, and such models must know all tasks at the "
            "start. Give the data sets as a list, dataset=[...], or write a `learn`."
        )
    for name, strategy in _strategies(learner):
        if strategy.needs_all_tasks:
            raise ConfigError(
                f"strategy={name} must know the number of tasks at the start, and learn_task adds one. "
                "Give the data sets as a list, dataset=[...], or choose another strategy, such as er."
            )


def check_classes(world: World, learner: Learner, train: Arrays, name: str | None) -> None:
    """Raise ConfigError if a strategy cannot learn these classes again."""
    for short, strategy in _strategies(learner):
        if not strategy.needs_new_classes or world.scenario == "domain" or not train.discrete:
            continue
        growing = world.growing()
        known = {c for task in range(growing.filled) for c in world.classes(task).tolist()}
        if again := sorted(known & set(growing.outputs_of(train).tolist())):
            raise ConfigError(
                f"strategy={short} needs new classes in every task, but {name or train.name} has class "
                f"{again[0]} again. Choose another strategy, or start the run with scenario=domain."
            )


def read_later(settings: Settings, of_run: Plan) -> tuple[Arrays, Arrays | None]:
    """The data that settings name, read as the run's own was, with labels unchanged.

    Raises:
        ConfigError, DataError: If it cannot be read.
    """
    plan = make_plan(settings, of_run=of_run)
    if (count := len(plan.dataset or ())) != 1:
        raise ConfigError(
            f"learn_task accepts one data set at a time, and received {count}. Call it once for each."
        )
    train, test, *_ = read_data(plan, numbered=False)
    return train[0], test[0]


def _strategies(learner: Learner) -> list[tuple[str, Strategy]]:
    """Built-in strategies by name; a user's class may use `needs_all_tasks` for anything."""
    strategies = learner.strategies
    named = {} if strategies is None else strategies.named
    return [(name, found) for name, found in named.items() if isinstance(found, Strategy)]

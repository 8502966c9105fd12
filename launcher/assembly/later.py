"""Data that arrives after a run has finished: what can be learnt, and how it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...agents.continual.strategy import Strategy
from ...agents.traits import stated_traits
from ...envs.arrays import Arrays
from ...replay import ConfigError
from ..settings.compose import Settings
from ..settings.plan import Plan, make_plan
from .data import read_data

if TYPE_CHECKING:
    from ..open_run import OpenRun


def check_grows(run: OpenRun) -> None:
    """Raise ConfigError if this run cannot learn another task."""
    if run.status not in ("finished", "waiting"):
        todo = "learn its own tasks first" if run.status == "open" else "call ml with resume=true"
        raise ConfigError(f"learn_task needs a finished run, and this one is {run.status}: {todo}.")
    run.world.growing()
    if run.plan.online:
        raise ConfigError("learn_task starts a new task, but online=true has no task boundaries.")
    if stated_traits(run.learner.agent).observes:
        raise ConfigError(
            f"{type(run.own).__name__} has an `observe`, and such models must know all tasks at the "
            "start. Give the data sets as a list, dataset=[...], or write a `learn`."
        )
    for name, strategy in _strategies(run):
        if strategy.needs_all_tasks:
            raise ConfigError(
                f"strategy={name} must know the number of tasks at the start, and learn_task adds one. "
                "Give the data sets as a list, dataset=[...], or choose another strategy, such as er."
            )


def check_classes(run: OpenRun, train: Arrays, name: str | None) -> None:
    """Raise ConfigError if a strategy cannot learn these classes again."""
    for short, strategy in _strategies(run):
        if not strategy.needs_new_classes or run.world.scenario == "domain" or not train.discrete:
            continue
        world = run.world.growing()
        known = {c for task in range(world.filled) for c in run.world.classes(task).tolist()}
        if again := sorted(known & set(world.outputs_of(train).tolist())):
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


def _strategies(run: OpenRun) -> list[tuple[str, Any]]:
    """Built-in strategies by name; a user's class may use `needs_all_tasks` for anything."""
    strategies = run.learner.strategies
    named = {} if strategies is None else strategies.named
    return [(name, found) for name, found in named.items() if isinstance(found, Strategy)]

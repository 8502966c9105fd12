"""Checks that a finished run can learn another task, from data that arrived later."""

from __future__ import annotations

from torch import nn

from ...agents.continual.strategy import Strategy
from ...envs.arrays import Arrays
from ...envs.world import World
from ...replay import ConfigError
from .learner import Learner
from .strategies import Strategies


def check_grows(world: World, learner: Learner, own: nn.Module, *, online: bool) -> None:
    """Refuse a run that cannot learn a task unknown at its start.

    Args:
        own: The user's module.
        online: Whether the run has no task boundaries.

    Raises:
        ConfigError: Saying what to do instead.
    """
    world.growing()  # Raises for a world that cannot grow.
    if online:
        raise ConfigError("learn_task starts a new task, but online=true has no task boundaries.")
    if learner.traits.observes:
        raise ConfigError(
            f"{type(own).__name__} has an `observe`, and such models must know all tasks at the "
            "start. Give the data sets as a list, dataset=[...], or write a `learn`."
        )
    for name, strategy in _ours(learner.strategies).items():
        if strategy.needs_all_tasks:
            raise ConfigError(
                f"strategy={name} must know the number of tasks at the start, and learn_task adds one. "
                "Give the data sets as a list, dataset=[...], or choose another strategy, such as er."
            )


def check_classes(world: World, strategies: Strategies, train: Arrays, name: str | None) -> None:
    """Refuse classes that a strategy cannot learn again.

    Args:
        train: The new task's rows, `[N, ...]` each field.
        name: The task's name; None: that of the data.

    Raises:
        ConfigError: Naming the first of them.
    """
    for short, strategy in _ours(strategies).items():
        if not strategy.needs_new_classes or world.scenario == "domain" or not train.discrete:
            continue
        growing = world.growing()
        known = {c for task in range(growing.filled) for c in world.classes(task).tolist()}
        if again := sorted(known & set(growing.outputs_of(train).tolist())):
            raise ConfigError(
                f"strategy={short} needs new classes in every task, but {name or train.name} has class "
                f"{again[0]} again. Choose another strategy, or start the run with scenario=domain."
            )


def _ours(strategies: Strategies) -> dict[str, Strategy]:
    """Built-in strategies by name; a user's class may use `needs_all_tasks` for anything."""
    return {name: s for name, s in strategies.named.items() if isinstance(s, Strategy)}

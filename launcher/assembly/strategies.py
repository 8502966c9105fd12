"""The strategies of continual learning that the plan names, and the outputs of each task."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...agents.continual import NAMES
from ...envs.world import World
from ...replay import ConfigError, Spec
from ..settings.object_names import class_name, makes_objects
from ..settings.plan import Plan
from .infer import inferred


def named_strategies(plan: Plan, spec: Spec, device: torch.device) -> dict[str, Any]:
    """The strategies that the plan names, constructed, by name.

    Raises:
        ConfigError: If one cannot be constructed, or is named twice.
    """
    named: dict[str, Any] = {}
    table = inferred(spec, device=device)
    for given in plan.strategy or ():
        name = strategy_name(given.target)
        if name in named:  # Checkpoints hold strategies by name.
            raise ConfigError(f"strategy={name} is given twice.")
        if given.arguments and not given.constructs:
            raise ConfigError(f"strategy={name} is already constructed and takes no arguments.")
        named[name] = given.build(table)
    return named


def classes_of_tasks(world: World, *, told: bool) -> list[Tensor]:
    """Each task's output indices, int64 `[num_classes of the task]`; empty for targets that are values.

    Args:
        told: Whether the learner knows which task a batch comes from; if not, every task has all classes.
    """
    every = torch.arange(world.spec.action.n if world.spec.has_classes else 0)
    return [world.classes(task) if told else every for task in range(len(world.tasks))]


def strategy_name(strategy: object) -> str:
    """`er` for Antelope's `ER`; the class name for a user's strategy."""
    name = class_name(strategy) if makes_objects(strategy) else type(strategy).__name__
    ours = {own: short for short, own in NAMES["strategy"].items()}
    return ours.get(name, name)

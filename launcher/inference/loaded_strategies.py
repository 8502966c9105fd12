"""The strategies of a loaded run that take part in its predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...agents.continual import NAMES
from ...agents.traits import hook
from ...envs.transform import Transform
from ..assembly.forward import example
from ..assembly.model import Model
from ..learn.building import build_strategies
from ..learn.strategies import Strategies
from ..settings.imports import member
from ..settings.plan import Plan
from .loaded_world import LoadedData, LoadedEnvironments


def loaded_strategies(
    learner: Mapping[str, Any],
    plan: Callable[[], Plan],
    world: LoadedData | LoadedEnvironments,
    model: Model,
    transform: Transform,
) -> Strategies | None:
    """The strategies of a run on data that has one which predicts, without their state; None: none does.

    Args:
        learner: The learner's part of a checkpoint.
        plan: Makes the plan with the strategies, which the user may have to name.
        transform: Turns stored rows into the model's inputs.

    Raises:
        ConfigError: If the user has to name one.
    """
    if not isinstance(world, LoadedData) or not predicting(learner.get("strategies")):
        return None
    made: Any = world
    return build_strategies(
        plan(), made, model, transform, obs=example(model, made, transform), loss=None
    )


def predicting(kept: Mapping[str, Any] | None) -> list[str]:
    """The names of the strategies that predict themselves, from their part of a checkpoint."""
    if kept is None:
        return []
    if "predicting" in kept:
        names: list[str] = kept["predicting"]
        return names
    # Before 0.5.0 only the names of all were kept.
    ours = NAMES["strategy"]
    home = "antelope.agents.continual"
    classes = {name: member(home, ours[name]) for name in kept["strategies"] if name in ours}
    return [name for name, found in classes.items() if hook(found, "predict") is not None]

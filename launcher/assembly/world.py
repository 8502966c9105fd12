"""What a run learns from: the data sets or environments that the plan names."""

from __future__ import annotations

from ...envs.world import World
from ..settings.plan import Plan
from ..settings.warn import warn_caller
from .data import build_data


def build_world(plan: Plan) -> World:
    """The data sets or environments that the settings name."""
    if plan.env is not None:
        from .environments import build_environments

        return build_environments(plan)
    world = build_data(plan)
    if world.single_class is not None:
        warn_caller(
            f"All rows of {world.name} have the same class ({world.single_class}): an accuracy of 1.0 means "
            "nothing."
        )
    return world

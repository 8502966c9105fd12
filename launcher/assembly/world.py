"""The world of a run: the data sets or environments that the plan names."""

from __future__ import annotations

from ...envs.world import World
from ..settings.plan import Plan
from ..settings.warn import warn_caller
from .data import build_data


def build_world(plan: Plan) -> World:
    """The data sets or environments that the plan names.

    Raises:
        ConfigError: If the settings contradict each other or name something unusable.
        DataError: If a data set cannot be read or learnt from.
    """
    if plan.env is not None:
        # Late: gymnasium takes part of a second to import, which runs on data need not pay.
        from .environments import build_environments

        return build_environments(plan)
    world = build_data(plan)
    if world.single_class is not None:
        what = "pixels" if world.spec.action.kind == "pixels" else "rows"
        warn_caller(
            f"All {what} of {world.name} have the same class ({world.single_class}), so an accuracy of 1.0 "
            "means nothing."
        )
    return world

"""Starts a run from what another one has learnt: `load=PATH`, or `model=run.agent`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ...agents.policy.raw_observations import statistics_of
from ...envs.world import World
from ...replay import CheckpointError, ConfigError, Normalizer
from ..settings.plan import Plan
from .checkpoint import find
from .state import check_growth, load_weights
from .validation import check_structure


def read_earlier(plan: Plan) -> tuple[Plan, dict[str, Any] | None]:
    """Read the checkpoint of `load=`, and adapt the plan to its weights.

    Returns:
        The plan, with `normalize_obs` as the weights expect it, and the checkpoint's state without its
        replay; None if `load=` is not set.

    Raises:
        ConfigError: If the user set `normalize_obs` to the opposite.
        CheckpointError: If there is no checkpoint, or it is damaged.
    """
    if plan.load is None:
        return plan, None
    state = find(Path(plan.load), without=("replay",))
    check_structure(state, without=("replay",))
    before = state.get("settings") or {}
    if plan.env is None or before.get("env") is None:
        return plan, state
    had, has = bool(before.get("normalize_obs")), plan.normalize_obs
    if had == has:
        return plan, state
    if has and "normalize_obs" in plan.given:
        raise ConfigError(
            f"normalize_obs=true, but {plan.load} learnt from observations that were not normalised, "
            "and its weights expect these. Leave out normalize_obs or load."
        )
    if had and "normalize_obs" in plan.given:
        raise ConfigError(
            f"normalize_obs=false, but {plan.load} learnt with normalize_obs=true: its weights expect "
            "normalised observations, and their statistics come with load=. Leave normalize_obs out."
        )
    return plan.decided(normalize_obs=had), state  # This agent may default to the opposite.


def read_module(plan: Plan) -> tuple[Plan, Normalizer | None]:
    """Adapt the plan to a module that comes from an earlier run.

    Weights trained on normalised observations expect them, so this run normalises them too, unless the user
    set `normalize_obs`.

    Returns:
        The plan, and the observation statistics that the module was trained with, or None.
    """
    known = None if plan.env is None else statistics_of(plan.model.target)
    if known is not None and "normalize_obs" not in plan.given:
        plan = plan.decided(normalize_obs=True)
    return plan, known if plan.normalize_obs else None


def continue_statistics(known: Normalizer, world: World) -> None:
    """Start from a module's observation statistics, if this run's observations have their shapes."""
    if (normalizer := world.normalizer) is None:
        return
    shapes = {name: moments.mean.shape for name, moments in normalizer.moments.items()}
    if shapes == {name: moments.mean.shape for name, moments in known.moments.items()}:
        load_statistics(normalizer, {"normalizer": known.state_dict()})


def take_over(state: dict[str, Any], agent: nn.Module, world: World) -> None:
    """Load the weights of a checkpoint, and its observation statistics.

    Args:
        state: What `checkpoint.find` returned.
        agent: Changed in place.
        world: Its normaliser, if there is one, receives the statistics.

    Raises:
        CheckpointError: Naming what is missing, left over, or of another shape.
    """
    earlier = state["learner"]
    check_growth(earlier.get("grown"), earlier["agent"])
    load_weights(agent, earlier["agent"], changed=earlier.get("grown"))
    if world.normalizer is not None:
        load_statistics(world.normalizer, state)


def load_statistics(normalizer: Normalizer, state: dict[str, Any]) -> None:
    """Continue a checkpoint's observation statistics; reward statistics are left alone.

    Args:
        normalizer: Changed in place.
        state: Has a `normalizer`, whose `moments` are named `obs/KEY`.

    Raises:
        CheckpointError: If they do not match this run's observations.
    """
    if not normalizer.moments:
        return
    saved = (state.get("normalizer") or {"moments": {}})["moments"]
    for name, moments in normalizer.moments.items():
        kept = saved.get(f"obs/{name}")
        shape = None if kept is None else list(np.shape(kept["mean"]))
        if kept is None or shape != list(moments.mean.shape):
            which = f" `{name}`" if name else ""
            raise CheckpointError(
                f"The checkpoint's statistics for observations{which} are {shape or 'missing'}; this run's "
                f"are {list(moments.mean.shape)}. It comes from another environment."
            )
        moments.load_state_dict(kept)

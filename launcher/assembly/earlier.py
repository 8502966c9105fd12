"""A run that begins with what another one has learnt: `load=PATH`, or `model=run.agent`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ...agents.policy.raw_observations import statistics_of
from ...envs.world import World
from ...replay import CheckpointError, ConfigError, Normalizer
from ..record.checkpoint import find
from ..settings.compose import Settings
from ..settings.named import named_object
from .weights import load_weights


def read_earlier(settings: Settings) -> dict[str, Any] | None:
    """The checkpoint that `load=` names, and into the settings what its weights need; None: none is named.

    Raises:
        ConfigError: If the settings say otherwise.
        CheckpointError: If there is no checkpoint, or it is damaged.
    """
    if settings.load is None:
        return None
    state = find(Path(settings.load), without=("replay",))
    before = state.get("settings") or {}
    if settings.env is None or before.get("env") is None:
        return state
    had, has = bool(before.get("normalize_obs")), settings.normalize_obs
    if had == has:
        return state
    if has and "normalize_obs" in settings.given:
        raise ConfigError(
            f"normalize_obs=true, but {settings.load} learnt from observations as they are, which is what "
            "its weights expect. Leave out normalize_obs, or load."
        )
    if had and "normalize_obs" in settings.given:
        raise ConfigError(
            f"normalize_obs=false, but {settings.load} learnt with normalize_obs=true: its weights expect "
            "normalised observations, and their statistics come with load=. Leave normalize_obs out."
        )
    settings.values["normalize_obs"] = had  # Its agent's default may be another.
    return state


def read_module(settings: Settings) -> Normalizer | None:
    """The statistics of observations that the module given has learnt with; None: it has none.

    Its weights expect normalised observations, and this run normalises them unless the user says otherwise.
    """
    known = None if settings.env is None else statistics_of(named_object(settings, "model")[0])
    if known is not None and "normalize_obs" not in settings.given:
        settings.values["normalize_obs"] = True
    return known if settings.normalize_obs else None


def continue_statistics(known: Normalizer, world: World) -> None:
    """Go on with the statistics of a module given, where they are of such observations as this run's."""
    if (normalizer := world.normalizer) is None:
        return
    shapes = {name: moments.mean.shape for name, moments in normalizer.moments.items()}
    if shapes == {name: moments.mean.shape for name, moments in known.moments.items()}:
        load_statistics(normalizer, {"normalizer": known.state_dict()})


def take_over(state: dict[str, Any], agent: nn.Module, world: World) -> None:
    """Begin with the weights of a checkpoint, and its statistics of observations.

    Raises:
        CheckpointError: Naming what is missing, left over, or of another shape.
    """
    earlier = state["learner"]
    load_weights(agent, earlier["agent"], changed=earlier.get("grown"))
    if world.normalizer is not None:
        load_statistics(world.normalizer, state)


def load_statistics(normalizer: Normalizer, state: dict[str, Any]) -> None:
    """Continue with the statistics of observations in a checkpoint; those of rewards stay as they are.

    Raises:
        CheckpointError: If they are of other observations.
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
                f"The checkpoint's statistics of observations{which} are {shape or 'missing'}; this run's "
                f"are {list(moments.mean.shape)}. It comes from another environment."
            )
        moments.load_state_dict(kept)

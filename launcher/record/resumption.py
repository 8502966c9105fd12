"""Compares a checkpoint's settings with those of the run that continues it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...replay import ConfigError
from ..settings.schema import that_count

Changes = dict[str, tuple[Any, Any]]


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """The settings that differ from a checkpoint's.

    Args:
        before: The checkpoint's settings, by name.
        now: Those of this run.

    Returns:
        The previous and the new value of each; incidental settings and `load` are left out.

    Raises:
        ConfigError: If one of them defines the sequence of tasks, which must not change.
    """
    # Where a run started from no longer matters once it has.
    may_differ = {*that_count("incidental"), "load"}
    changed = {
        key: (before.get(key), now.get(key))
        for key in {**before, **now}
        if key not in may_differ and before.get(key) != now.get(key)
    }
    for key in that_count("sequence") & changed.keys():
        was, wanted = changed[key]
        raise ConfigError(
            f"The checkpoint comes from a run with {key}={was}, but this one has {key}={wanted}: it "
            "cannot be resumed with different settings. Set another path or experiment."
        )
    return changed


def parts_to_restart(changed: Changes) -> tuple[str, ...]:
    """The parts of a learner that cannot load their saved state, since the settings now name another class.

    Returns:
        Of "optimizer" and "scheduler", those that start over.
    """
    before, now = (optim or {} for optim in changed.get("optim", ({}, {})))
    kinds = (before.get("_target_"), now.get("_target_"))
    if kinds[0] != kinds[1] or list(before.get("groups", ())) != list(now.get("groups", ())):
        return ("optimizer", "scheduler")
    return ("scheduler",) if {"scheduler", "lr_decay_epochs"} & changed.keys() else ()


def saved_device(state: Mapping[str, Any]) -> torch.device:
    """The device on which the checkpoint was written."""
    if "device" in state:
        return torch.device(state["device"])
    return torch.device("cuda" if "cuda" in state["random"] else "cpu")  # Before 0.5.0.

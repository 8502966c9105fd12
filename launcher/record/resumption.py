"""What a checkpoint's settings say about continuing it: what has changed, and what cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...replay import ConfigError
from ..settings.schema import that_count

Changes = dict[str, tuple[Any, Any]]


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """The settings that differ from a checkpoint's, each with its value then and now.

    Raises:
        ConfigError: If one describes the sequence of tasks.
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
            "cannot be resumed with different settings. Give another path or experiment."
        )
    return changed


def parts_to_restart(changed: Changes) -> tuple[str, ...]:
    """The parts of a learner whose saved state belongs to another class than the settings now name."""
    before, now = (optim or {} for optim in changed.get("optim", ({}, {})))
    kinds = (before.get("_target_"), now.get("_target_"))
    if kinds[0] != kinds[1] or list(before.get("groups", ())) != list(now.get("groups", ())):
        return ("optimizer", "scheduler")
    return ("scheduler",) if {"scheduler", "lr_decay_epochs"} & changed.keys() else ()


def saved_device(state: Mapping[str, Any]) -> torch.device:
    """The device that the run of a checkpoint learnt on."""
    if "device" in state:
        return torch.device(state["device"])
    return torch.device("cuda" if "cuda" in state["random"] else "cpu")  # Before 0.5.0.

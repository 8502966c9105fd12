"""The fields of `info` as a model's `act` receives them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..agents import traits as of
from ..agents.blocks.masks import ACTION_MASK
from ..replay import ConfigError, Spec
from ..replay.transfer import upload
from ..replay.transitions import nested
from ..replay.tree import leaves

_AGENTS = of.__name__.rpartition(".")[0]  # The package of our own.


class Info(dict[str, Any]):
    """Tensors `[N, ...]` by the names in `env_info`, dicts of them where the environment gives dicts.

    Raises:
        ConfigError: When asked for a field that is not among them.
    """

    @classmethod
    def of(cls, rows: dict[str, np.ndarray] | None, device: torch.device) -> Info:
        """Those of arrays, on `device`; None: there are none."""
        if not rows:
            return cls()
        tensors: dict[str, Tensor] = {n: torch.from_numpy(array) for n, array in rows.items()}
        if device.type != "cpu":
            tensors = upload(tensors, device)
        return cls(nested(tensors))

    def __missing__(self, name: str) -> Any:
        there = ", ".join(f"`{key}`" for key in self) or "nothing"
        raise ConfigError(
            f"`act` asks for info[{name!r}], and info holds {there}. Name the fields that it needs: "
            f"env_info=[{name}]."
        )


def check_masks(agent: nn.Module, spec: Spec, env_info: Sequence[str] | None) -> None:
    """Refuse `action_mask` where an agent of ours, or our way to act for a model, cannot keep to it.

    Raises:
        ConfigError: Saying why, and what can.
    """
    if ACTION_MASK not in (env_info or ()):
        return
    core = of.traits(agent).core or agent
    act = of.hook(core, "act")
    if act is not None and not str(getattr(act, "__module__", "")).startswith(_AGENTS):
        return  # The user's own: what the mask means is for it to say.
    name = type(core).__name__
    if not any(space.discrete for space in leaves(spec.action)):
        raise ConfigError(
            f"env_info=action_mask: a mask rules out choices, and the action is {spec.action}: numbers, of "
            "which none can be ruled out. Leave it out, or write a model whose act(obs, info) reads it."
        )
    if act is not None and not of.takes_info(act):
        raise ConfigError(
            f"env_info=action_mask: {name} does not keep to a mask: its critic and its policy are of all "
            "actions. Take DQN, PPO or A2C, or leave action_mask out."
        )


def needs_info(act: Any) -> bool:
    """Whether an `act` cannot be called without `info`."""
    try:
        parameter = inspect.signature(act).parameters.get("info")
    except (TypeError, ValueError):
        return False
    return parameter is not None and parameter.default is parameter.empty

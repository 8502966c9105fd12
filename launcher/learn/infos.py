"""The fields of `info` as a model's `act` receives them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...agents.policy.masks import ACTION_MASK
from ...agents.traits import hook, stated_traits, takes_info
from ...replay import ConfigError, Spec
from ...replay.field_names import nested
from ...replay.transfer import upload
from ...replay.tree import leaves

_AGENTS = hook.__module__.rpartition(".")[0]  # The package of Antelope's own agents.


class Info(dict[str, Any]):
    """Tensors `[N, ...]` by the names in `env_info`; dicts of them where the environment returns dicts.

    Raises:
        ConfigError: If a missing field is read.
    """

    @classmethod
    def of(cls, rows: dict[str, np.ndarray] | None, device: torch.device) -> Info:
        """The fields as tensors.

        Args:
            rows: Arrays `[N, ...]` by name; None: no fields.
            device: Where the tensors are needed.
        """
        if not rows:
            return cls()
        tensors: dict[str, Tensor] = {n: torch.from_numpy(array) for n, array in rows.items()}
        if device.type != "cpu":
            tensors = upload(tensors, device)
        return cls(nested(tensors))

    def __missing__(self, name: str) -> Any:
        there = ", ".join(f"`{key}`" for key in self) or "nothing"
        raise ConfigError(
            f"`act` reads info[{name!r}], but info holds only {there}. Name every field that it needs: "
            f"env_info=[{name}]."
        )


def check_masks(agent: nn.Module, spec: Spec, env_info: Sequence[str] | None) -> None:
    """Refuse `action_mask` if Antelope's agent, or its default `act`, cannot apply it.

    Raises:
        ConfigError: Stating why, and which agents can.
    """
    if ACTION_MASK not in (env_info or ()):
        return
    core = stated_traits(agent).core or agent
    act = hook(core, "act")
    if act is not None and not str(getattr(act, "__module__", "")).startswith(_AGENTS):
        return  # A user's own `act` decides what the mask means.
    name = type(core).__name__
    if not any(space.discrete for space in leaves(spec.action)):
        raise ConfigError(
            f"env_info=action_mask: a mask rules out choices, but the action is continuous, {spec.action}. "
            "Leave it out, or write a model whose act(obs, info) reads it."
        )
    if act is not None and not takes_info(act):
        raise ConfigError(
            f"env_info=action_mask: {name} does not support masks: its policy and critic cover all "
            "actions. Use DQN, PPO or A2C, or leave action_mask out."
        )


def check_act(agent: nn.Module) -> None:
    """Refuse an `act` with required parameters that it does not receive.

    Raises:
        ConfigError: Naming the parameter, and how to receive fields of `info`.
    """
    act = hook(agent, "act")
    try:
        parameters = list(inspect.signature(act).parameters.values())[1:] if act is not None else []
    except (TypeError, ValueError):  # Written in C, it has no signature.
        return
    for parameter in parameters:
        needed = parameter.default is parameter.empty
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if needed and parameter.name not in ("state", "info"):
            name = parameter.name
            raise ConfigError(
                f"{type(agent).__name__}.act needs `{name}`, which it does not receive. It receives obs, the "
                "state of a recurrent model, and info, if it has a parameter of that name. Write "
                f"act(self, obs, info) and set env_info=[{name}] for info[{name!r}]."
            )

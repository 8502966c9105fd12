"""What tells one environment from another: its id, arguments, wrappers and spaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker

# How an environment is shown says nothing about what is learnt in it.
_SHOWN = ("render_mode", "render_fps")
# Put around by `gymnasium.make`; what they let through is unchanged.
_CHECKS = (PassiveEnvChecker, OrderEnforcing)


def identity(env: Any, name: str) -> dict[str, Any]:
    """Plain data that is equal for copies of one environment, in other processes too.

    Args:
        env: An open environment with its wrappers, or a vector environment.
        name: What errors call it.
    """
    several = isinstance(env, VectorEnv)
    spaces = ("single_observation_space", "single_action_space") if several else ()
    given, taken = (
        getattr(env, space) for space in spaces or ("observation_space", "action_space")
    )
    spec = env.spec
    arguments = getattr(spec, "kwargs", None) or {}
    return {
        "name": name,
        "whole": spec is not None and all(map(_is_plain, arguments.values())),
        "id": None if spec is None else spec.id,
        "arguments": _plain(arguments),
        "class": type(env.unwrapped).__name__,
        "wrappers": _wrappers(env, getattr(spec, "additional_wrappers", None) or ()),
        "observations": repr(given),
        "actions": repr(taken),
    }


def _wrappers(env: Any, recorded: Sequence[Any]) -> list[str]:
    """The wrappers around an environment, innermost first.

    Args:
        recorded: Those whose arguments gymnasium has recorded.
    """
    found: list[str] = []
    while isinstance(env, (gymnasium.Wrapper, VectorWrapper)):
        if not isinstance(env, _CHECKS):
            found.append(type(env).__name__)
        env = env.env
    known = {wrapper.name: _plain(wrapper.kwargs or {}) for wrapper in recorded}
    return [f"{name} {known[name]}" if known.get(name) else name for name in found[::-1]]


def _plain(arguments: Mapping[str, object]) -> dict[str, Any]:
    """The arguments that are plain data."""
    return {
        key: value for key, value in arguments.items() if key not in _SHOWN and _is_plain(value)
    }


def _is_plain(value: object) -> bool:
    """Whether a value is text, a number, or a list or dict of those: others have no lasting form."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, (bool, int, float, str))

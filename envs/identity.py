"""What tells one environment from another: its id, arguments, wrappers and spaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import HumanRendering, OrderEnforcing, PassiveEnvChecker, RecordVideo

from .running import layers

# How an environment is shown says nothing about what is learnt in it.
_SHOWN = ("render_mode", "render_fps")
# They check or show an environment, and change nothing that passes through them.
_UNSEEN = (PassiveEnvChecker, OrderEnforcing, RecordVideo, HumanRendering)
_LARGEST_ARRAY = 1000  # Values that are written out; a checkpoint holds them as text.


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
    around = [*layers(env)]
    core = env.unwrapped
    # Copies in this process are all alike; what is in other processes cannot be seen.
    if isinstance(core, SyncVectorEnv) and isinstance(core.envs[0], gymnasium.Env):
        env = core.envs[0]
        around += layers(env)
    around = [layer for layer in around if not isinstance(layer, _UNSEEN)]
    spec = env.spec
    arguments = getattr(spec, "kwargs", None) or {}
    seen = spec is not None and not isinstance(core, AsyncVectorEnv)
    return {
        "name": name,
        "whole": seen and _is_plain(arguments) and all(map(_is_recorded, around)),
        "id": None if spec is None else spec.id,
        "arguments": _plain(arguments),
        "class": type(env.unwrapped).__name__,
        "wrappers": [_in_words(layer) for layer in around[::-1]],
        "observations": repr(given),
        "actions": repr(taken),
    }


def _in_words(wrapper: Any) -> str:
    """The class of a wrapper, and the arguments that are known."""
    arguments = _plain(_arguments(wrapper) or {})
    name = type(wrapper).__name__
    return f"{name} {arguments}" if arguments else name


def _is_recorded(wrapper: Any) -> bool:
    """Whether a wrapper of the same class and arguments does the same."""
    arguments = _arguments(wrapper)
    return arguments is not None and _is_plain(arguments)


def _arguments(wrapper: Any) -> dict[str, Any] | None:
    """The arguments of a wrapper; None: it did not record them."""
    if not isinstance(wrapper, RecordConstructorArgs):
        return None
    recorded = wrapper._saved_kwargs  # Private in gymnasium 1.x.
    return {key: value for key, value in recorded.items() if key != "env"}


def _plain(arguments: Mapping[str, object]) -> dict[str, Any]:
    """The arguments that are plain data, as JSON holds them."""
    return {
        key: _as_json(value)
        for key, value in arguments.items()
        if key not in _SHOWN and _is_plain(value)
    }


def _is_plain(value: object) -> bool:
    """Whether a value is text, numbers, or a list or dict of those: others have no lasting form."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (np.ndarray, np.generic)):
        return value.size <= _LARGEST_ARRAY and value.dtype.kind in "biuf"
    return value is None or isinstance(value, (bool, int, float, str))


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return [_as_json(item) for item in value] if isinstance(value, (list, tuple)) else value

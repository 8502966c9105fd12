"""The spaces of one environment as plain data: enough to act as in it without having it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from ..replay import CheckpointError, Space
from ..replay.structure import LARGEST_OBS
from .copies import Copies
from .spaces import Codec, codec
from .unseen import seen
from .vector import Vector


@dataclass(frozen=True)
class Interface:
    """The spaces of one environment, and how its observations are prepared for a model.

    Attributes:
        name: What errors call the environment.
        observation, action: Its spaces including wrappers, without parts that models cannot receive.
        stack: Frames that the model receives at once.
        channels: "first" or "last", as in `codec`; None: inferred.
        longest: Most actions of an episode before it is truncated; None: unknown.
        env_info: Fields of `info` that the model may receive.
    """

    name: str
    observation: gymnasium.Space[Any]
    action: gymnasium.Space[Any]
    stack: int = 1
    channels: str | None = None
    longest: int | None = None
    env_info: tuple[str, ...] = ()

    @classmethod
    def of(cls, envs: Copies | Vector, **options: Any) -> Interface:
        """The interface of copies, which may be closed by now.

        Args:
            options: `stack`, `channels` and `env_info`.
        """
        if isinstance(envs, Vector):
            given, taken = envs.envs.single_observation_space, envs.envs.single_action_space
            return cls(envs.name, seen(given), taken, **options)
        env = envs.envs[0]
        given, taken = env.observation_space, env.action_space
        return cls(envs.name, seen(given), taken, longest=_longest(env), **options)

    @cached_property
    def obs_codec(self) -> Codec:
        what = f"observations of {self.name}"
        return codec(self.observation, what, stack=self.stack, channels=self.channels)

    @cached_property
    def action_codec(self) -> Codec:
        return codec(self.action, f"actions of {self.name}", action=True)

    @property
    def spaces(self) -> tuple[Space | dict[str, Any], Space | dict[str, Any]]:
        """Observation and action, as models know them."""
        return self.obs_codec.space, self.action_codec.space

    def state_dict(self) -> dict[str, Any] | None:
        """For a checkpoint; None if one of the spaces cannot be described as data."""
        given, taken = as_data(self.observation), as_data(self.action)
        if given is None or taken is None:
            return None
        rest = {key: getattr(self, key) for key in ("name", "stack", "channels", "longest")}
        rest["env_info"] = list(self.env_info)
        return {**rest, "observation": given, "action": taken}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Interface:
        read = {key: from_data(state[key]) for key in ("observation", "action")}
        return cls(**{**state, **read, "env_info": tuple(state["env_info"])})


def _longest(env: Any) -> int | None:
    """The smallest time limit among an environment's wrappers, in actions; None: there is none."""
    limits = []
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, TimeLimit):
            # Private in gymnasium 1.x, where the limit has no public name.
            limits.append(int(env._max_episode_steps))
        env = env.env
    return min(limits, default=None)


def as_data(space: gymnasium.Space[Any]) -> dict[str, Any] | None:
    """A space as arrays, numbers and text; None if that does not describe all of it.

    >>> as_data(spaces.Box(0, 255, (84, 84), np.uint8))
    {'kind': 'Box', 'low': 0, 'high': 255, 'shape': [84, 84], 'dtype': 'uint8'}
    """
    data = _described(space)
    if data is None or from_data(data) != space:  # A subclass of the user's, which holds more.
        return None
    return data


def _described(space: gymnasium.Space[Any]) -> dict[str, Any] | None:
    kind = {"kind": type(space).__name__}
    if type(space) is spaces.Box:
        ends = {"low": _short(space.low), "high": _short(space.high)}
        return {**kind, **ends, "shape": list(space.shape), "dtype": str(space.dtype)}
    if type(space) is spaces.Discrete:
        return {**kind, "n": int(space.n), "start": int(space.start), "dtype": str(space.dtype)}
    if type(space) is spaces.MultiDiscrete:
        return {**kind, "nvec": space.nvec, "start": space.start, "dtype": str(space.dtype)}
    if type(space) is spaces.MultiBinary:
        several = isinstance(space.n, tuple | list | np.ndarray)
        return {**kind, "n": list(space.shape) if several else int(space.n)}  # type: ignore[arg-type]
    if type(space) is spaces.Text:
        lengths = {"min_length": space.min_length, "max_length": space.max_length}
        return {**kind, **lengths, "charset": "".join(sorted(space.character_set))}
    if isinstance(space, spaces.Dict):
        parts = [[key, _described(part)] for key, part in space.spaces.items()]
        known = all(isinstance(key, (str, int)) and part is not None for key, part in parts)
        return {"kind": "Dict", "parts": parts} if known else None
    if isinstance(space, spaces.Tuple):
        items = [_described(part) for part in space.spaces]
        return {"kind": "Tuple", "parts": items} if all(item for item in items) else None
    return None


def from_data(data: dict[str, Any]) -> gymnasium.Space[Any]:
    """The space that `as_data` described."""
    kind = data["kind"]
    if kind == "Box":
        dtype, shape = np.dtype(data["dtype"]), tuple(data["shape"])
        if math.prod(shape) > LARGEST_OBS:
            raise CheckpointError(f"A space of shape {list(shape)} does not fit into memory.")
        low, high = (np.full(shape, data[end], dtype) for end in ("low", "high"))
        return spaces.Box(low, high, shape, dtype.type)
    if kind == "Discrete":
        kwargs = {"dtype": np.dtype(data["dtype"]).type} if data.get("dtype") else {}
        return spaces.Discrete(data["n"], start=data["start"], **kwargs)
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(data["nvec"], np.dtype(data["dtype"]).type, start=data["start"])
    if kind == "MultiBinary":
        return spaces.MultiBinary(data["n"])
    if kind == "Text":
        lengths = {key: data[key] for key in ("min_length", "max_length")}
        return spaces.Text(**lengths, charset=data["charset"])
    if kind == "Dict":
        # As pairs, which keep their order: gymnasium sorts the keys of a plain dict.
        return spaces.Dict([(key, from_data(part)) for key, part in data["parts"]])
    return spaces.Tuple([from_data(part) for part in data["parts"]])


def _short(bound: np.ndarray) -> Any:
    """A bound as one number if all its numbers are the same."""
    first = bound.reshape(-1)[:1]
    return first[0].item() if first.size and (bound == first).all() else bound

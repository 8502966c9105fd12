"""What the settings put around an environment: gymnasium's wrappers, and one of our own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces, wrappers

from ..replay import ConfigError
from .refused_environments import refuse_other, refuse_vector_rewards

_LARGEST = 4096  # Choices that a network can still score one by one.


def wrapped(
    make: Callable[..., Any],
    *,
    discrete: bool | None,
    bins: int,
    action_repeat: int,
    time_limit: int | None,
    **arguments: Any,
) -> Any:
    """Make an environment and put around it what is asked for.

    Raises:
        ConfigError: If its actions cannot be turned into the kind asked for.
    """
    env = make(**arguments)
    if isinstance(env, gymnasium.vector.VectorEnv):
        if discrete is not None or action_repeat > 1 or time_limit is not None:
            raise ConfigError(
                "discrete, action_repeat and time_limit wrap single environments; this one is a vector "
                "environment."
            )
        return env
    refuse_other(env)
    for name in ("observation_space", "action_space"):
        if not isinstance(space := getattr(env, name, None), spaces.Space):
            given = "is missing" if space is None else f"is a {type(space).__name__}"
            raise ConfigError(
                f"{type(env).__name__}.{name} {given}. Set it in __init__, to a gymnasium.spaces.Box, "
                "for example."
            )
    if action_repeat > 1:
        env = wrappers.RepeatAction(env, action_repeat)
    if time_limit is not None:
        # Innermost limits of the environment's own still hold.
        env = wrappers.TimeLimit(env, time_limit)
    if discrete is True and isinstance(env.action_space, spaces.Box):
        env = _binned(env, bins)
    elif discrete is False and isinstance(env.action_space, spaces.Discrete):
        env = Largest(env)
    elif discrete is not None and not isinstance(env.action_space, (spaces.Box, spaces.Discrete)):
        raise ConfigError(
            f"discrete={str(discrete).lower()} converts Box and Discrete actions, not "
            f"{type(env.action_space).__name__}."
        )
    refuse_vector_rewards(env)
    return env


def _binned(env: gymnasium.Env[Any, Any], bins: int) -> gymnasium.Env[Any, Any]:
    """The middles of `bins` equal parts of each dimension.

    One choice among all combinations while these are few, else one choice per dimension.
    """
    space = env.action_space
    assert isinstance(space, spaces.Box)
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ConfigError(f"discrete=true needs bounded actions; they are {space}.")
    several = bins ** int(np.prod(space.shape)) > _LARGEST
    return wrappers.DiscretizeAction(env, bins, multidiscrete=several)


class Largest(gymnasium.ActionWrapper[Any, Any, Any]):
    """n numbers from -1 to 1 instead of one of n choices: the largest is taken."""

    def __init__(self, env: gymnasium.Env[Any, Any]):
        super().__init__(env)
        space = env.action_space
        assert isinstance(space, spaces.Discrete)
        self._start = int(space.start)
        self.action_space = spaces.Box(-1.0, 1.0, (int(space.n),), np.float32)

    def action(self, action: Any) -> int:
        return self._start + int(np.argmax(action))

"""Wraps environments as the settings say, from the innermost wrapper to the outermost:

the wrappers that `env_wrappers` names, in order (so that they see what they would see in the user's own
factory), then `action_repeat`, `time_limit` (which counts repeated actions once) and `discrete`.
`frame_stack`, `normalize_obs` and `normalize_reward` are not wrappers: they apply to collected steps.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces, wrappers

from ..replay import ConfigError
from .not_an_environment import refuse_other, refuse_vector_rewards
from .opening import close

_LARGEST = 4096  # Most choices that a network scores one by one.


def wrapped(
    make: Callable[..., Any],
    *,
    discrete: bool | None,
    bins: int,
    action_repeat: int,
    time_limit: int | None,
    around: Sequence[Callable[[Any], Any]] = (),
    **arguments: Any,
) -> Any:
    """Make an environment and wrap it as asked for; on an error it is closed.

    Args:
        around: Wrappers that `env_wrappers` names, the innermost first.

    Raises:
        ConfigError: If a wrapper does not apply, or its actions cannot be converted to the kind asked for.
    """
    env = make(**arguments)
    refuse_other(env)
    several = isinstance(env, gymnasium.vector.VectorEnv)
    try:
        if several and (discrete is not None or action_repeat > 1 or time_limit is not None):
            raise ConfigError(
                "discrete, action_repeat and time_limit wrap single environments; this one is a vector "
                "environment."
            )
        _check_spaces(env)
        for wrap in around:
            # Checked after each wrapper, so that the error names the one at fault.
            env = wrap(env)
            _check_spaces(env)
        if several:
            return env
        refuse_vector_rewards(env)
        _check_reset(env)
        if action_repeat > 1:
            env = wrappers.RepeatAction(env, action_repeat)
        if time_limit is not None:
            # Added to the environment's own limit, which still applies: the smaller one counts.
            env = wrappers.TimeLimit(env, time_limit)
        return _converted(env, discrete=discrete, bins=bins)
    except BaseException:
        close([env])
        raise


def _check_spaces(env: Any) -> None:
    if isinstance(env, gymnasium.vector.VectorEnv):
        return
    for name in ("observation_space", "action_space"):
        if not isinstance(space := getattr(env, name, None), spaces.Space):
            given = "is missing" if space is None else f"is a {type(space).__name__}"
            raise ConfigError(
                f"{type(env).__name__}.{name} {given}. Set it in __init__, to a gymnasium.spaces.Box, "
                "for example."
            )


def _check_reset(env: Any) -> None:
    """Refuse environments that cannot be reset with a seed, by which episodes are reproduced."""
    reset = env.unwrapped.reset
    try:
        signature = inspect.signature(reset)
    except (TypeError, ValueError):  # Written in C: no signature.
        return
    try:
        signature.bind(seed=0)
    except TypeError:
        name, given = type(env.unwrapped).__name__, ", ".join(signature.parameters)
        raise ConfigError(
            f"{name}.reset({given}) has no parameter `seed`. Write reset(self, *, seed=None, "
            "options=None), beginning with super().reset(seed=seed), as gymnasium.Env does."
        ) from None


def _converted(env: Any, *, discrete: bool | None, bins: int) -> Any:
    """The environment with the kind of actions asked for."""
    if discrete is True and isinstance(env.action_space, spaces.Box):
        return _binned(env, bins)
    if discrete is False and isinstance(env.action_space, spaces.Discrete):
        return Largest(env)
    if discrete is not None and not isinstance(env.action_space, (spaces.Box, spaces.Discrete)):
        raise ConfigError(
            f"discrete={str(discrete).lower()} converts Box and Discrete actions, not "
            f"{type(env.action_space).__name__}."
        )
    return env


def _binned(env: gymnasium.Env[Any, Any], bins: int) -> gymnasium.Env[Any, Any]:
    """The environment with actions at the middles of `bins` equal parts of each dimension.

    One choice among all combinations if these are few, else one choice per dimension.
    """
    space = env.action_space
    assert isinstance(space, spaces.Box)
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ConfigError(f"discrete=true needs bounded actions; they are {space}.")
    several = bins ** int(np.prod(space.shape)) > _LARGEST
    return wrappers.DiscretizeAction(env, bins, multidiscrete=several)


class Largest(gymnasium.ActionWrapper[Any, Any, Any]):
    """Turns one of n choices into n numbers from -1 to 1, of which the largest is chosen."""

    def __init__(self, env: gymnasium.Env[Any, Any]):
        super().__init__(env)
        space = env.action_space
        assert isinstance(space, spaces.Discrete)
        self._start = int(space.start)
        self.action_space = spaces.Box(-1.0, 1.0, (int(space.n),), np.float32)

    def action(self, action: Any) -> int:
        return self._start + int(np.argmax(action))

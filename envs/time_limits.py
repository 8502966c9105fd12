"""Limits of episodes, in steps: the environment's own, and the one that evaluations apply."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from .running import layers

# Evaluation episodes without a time limit are cut at this multiple of the longest training episode, and
# not before the second number of steps: a greedy policy may walk in circles forever.
_TIMES_LONGEST, _SHORTEST_LIMIT = 10, 1000


def cut_after(eval_limit: int | None, time_limit: int | None, longest: int) -> int | None:
    """Steps after which an evaluation episode is cut; None: it ends by itself.

    Args:
        eval_limit: The user's setting, in steps; None: it was not given.
        time_limit: The environment's own limit, in steps; None: unknown.
        longest: Length in steps of the longest training episode.
    """
    if eval_limit is not None or time_limit is not None:
        return eval_limit
    return max(_SHORTEST_LIMIT, _TIMES_LONGEST * longest)


def time_limit_of(env: Any) -> int | None:
    """Steps after which an environment truncates its episodes; None: unknown."""
    for layer in layers(env):
        if isinstance(layer, gymnasium.wrappers.TimeLimit):
            return int(layer._max_episode_steps)  # Private in gymnasium 1.x.
    # A vector environment in this process shows its copies, which all have the same limit.
    unwrapped = env.unwrapped
    inside = getattr(unwrapped, "envs", None) if isinstance(unwrapped, VectorEnv) else None
    if inside and isinstance(inside[0], gymnasium.Env):
        return time_limit_of(inside[0])
    limit = getattr(getattr(env, "spec", None), "max_episode_steps", None)
    return None if limit is None else int(limit)

"""Default settings of a run with one of our agents."""

from __future__ import annotations

import inspect
from typing import Any

# Settings of the launcher, by the agent's name; the agent's own defaults are in its constructor.
_USUAL: dict[str, dict[str, Any]] = {
    "DQN": {"learn_every": 4},
    "SAC": {"batch_size": 256},
    "PPO": {"normalize_obs": True, "normalize_reward": True, "seed_steps": 0},
    "A2C": {"normalize_obs": True, "normalize_reward": True, "seed_steps": 0},
}


def usual(agent: object) -> dict[str, Any]:
    """The default settings for an agent's class, or for its nearest base that has any; else empty."""
    kind = agent if inspect.isclass(agent) else type(agent)
    package = __name__.rpartition(".")[0]
    for base in kind.__mro__:
        if base.__module__.startswith(package) and base.__name__ in _USUAL:
            return _USUAL[base.__name__]
    return {}

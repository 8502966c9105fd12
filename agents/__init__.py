"""Published agents, one per file. `NAMES` is the registry: what `model=` (or `agent=`) can name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..replay.lazy import lazily

if TYPE_CHECKING:
    from .a2c import A2C
    from .ac2agent import AC2Agent
    from .ddpg import DDPG
    from .dqn import DQN
    from .drqn import DRQN
    from .drqv2 import DrQV2
    from .ppo import PPO
    from .random import Random
    from .sac import SAC
    from .td3 import TD3

NAMES = {
    "model": ("A2C", "AC2Agent", "DDPG", "DQN", "DRQN", "DrQV2", "PPO", "Random", "SAC", "TD3"),
}

_HOME = {name: name.lower() for name in NAMES["model"]}

__all__ = ["A2C", "DDPG", "DQN", "DRQN", "PPO", "SAC", "TD3", "AC2Agent", "DrQV2", "Random"]


__getattr__ = lazily(__name__, _HOME)

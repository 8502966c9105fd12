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
    from .generative.dcgan import DCGAN
    from .generative.flow_matching import FlowMatching
    from .generative.vae import VAE
    from .ppo import PPO
    from .random import Random
    from .sac import SAC
    from .td3 import TD3

NAMES = {
    "model": (
        *("A2C", "AC2Agent", "DCGAN", "DDPG", "DQN", "DRQN", "DrQV2", "FlowMatching", "PPO"),
        *("Random", "SAC", "TD3", "VAE"),
    ),
}

_HOME = {name: name.lower() for name in NAMES["model"]} | {
    "DCGAN": "generative.dcgan",
    "FlowMatching": "generative.flow_matching",
    "VAE": "generative.vae",
}

__all__ = [
    "A2C",
    "DCGAN",
    "DDPG",
    "DQN",
    "DRQN",
    "PPO",
    "SAC",
    "TD3",
    "VAE",
    "AC2Agent",
    "DrQV2",
    "FlowMatching",
    "Random",
]


__getattr__ = lazily(__name__, _HOME)

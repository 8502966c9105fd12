"""DQN in plain PyTorch, one file: what `ml(agent=DQN)` is timed against in benchmarks/rl.py.

Mnih et al. (2015), with Adam as in CleanRL. It learns CartPole in some seconds:

    python benchmarks/plain/dqn.py [SEED]
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def network(obs_dim: int, num_actions: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(obs_dim, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, num_actions),
    )


class Replay:
    """The newest transitions, in preallocated tensors."""

    def __init__(self, capacity: int, obs_dim: int):
        self.columns = [
            torch.zeros(capacity, obs_dim),
            torch.zeros(capacity, dtype=torch.int64),
            torch.zeros(capacity),
            torch.zeros(capacity, obs_dim),
            torch.zeros(capacity),
        ]
        self.capacity, self.added = capacity, 0

    def add(self, *transition: Any) -> None:
        """obs, action, reward, next_obs, terminated."""
        for column, value in zip(self.columns, transition, strict=True):
            column[self.added % self.capacity] = value
        self.added += 1

    def sample(self, size: int) -> list[Tensor]:
        index = torch.randint(min(self.added, self.capacity), (size,))
        return [column.index_select(0, index) for column in self.columns]


def train(
    steps: int,
    *,
    seed: int = 0,
    env_id: str = "CartPole-v1",
    capacity: int = 50_000,
    batch_size: int = 128,
    lr: float = 1e-3,
    discount: float = 0.99,
    seed_steps: int = 1000,
    learn_every: int = 10,
    target_every: int = 500,
    epsilon: float = 0.05,
    decay_steps: int = 10_000,
    every_step: Callable[[], None] = lambda: None,
) -> nn.Module:
    """The Q-network after `steps` environment steps."""
    random.seed(seed)
    torch.manual_seed(seed)
    env = gym.make(env_id)
    obs = torch.from_numpy(env.reset(seed=seed)[0])
    num_actions = int(env.action_space.n)
    q_network = network(len(obs), num_actions)
    target_network = network(len(obs), num_actions)
    target_network.load_state_dict(q_network.state_dict())
    optimizer = torch.optim.Adam(q_network.parameters(), lr=lr, fused=True)
    replay = Replay(capacity, len(obs))
    for step in range(1, steps + 1):
        every_step()
        if random.random() < max(epsilon, 1 - step / decay_steps):
            action = random.randrange(num_actions)
        else:
            with torch.no_grad():
                action = int(q_network(obs).argmax())
        stepped, reward, terminated, truncated, _ = env.step(action)
        next_obs = torch.from_numpy(stepped)
        replay.add(obs, action, reward, next_obs, terminated)
        obs = torch.from_numpy(env.reset()[0]) if terminated or truncated else next_obs
        if step >= seed_steps and step % learn_every == 0:
            obs_B, action_B, reward_B, next_obs_B, terminated_B = replay.sample(batch_size)
            with torch.no_grad():
                best_B = target_network(next_obs_B).amax(1)
                target_B = reward_B + discount * (1 - terminated_B) * best_B
            q_B = q_network(obs_B).gather(1, action_B[:, None]).squeeze(1)
            loss = F.mse_loss(q_B, target_B)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if step % target_every == 0:
            target_network.load_state_dict(q_network.state_dict())
    env.close()
    return q_network


def evaluate(q_network: nn.Module, *, episodes: int = 20, env_id: str = "CartPole-v1") -> float:
    """Mean return of greedy episodes."""
    env, total = gym.make(env_id), 0.0
    for episode in range(episodes):
        (obs, _), over = env.reset(seed=10_000 + episode), False
        while not over:
            with torch.no_grad():
                action = int(q_network(torch.from_numpy(obs)).argmax())
            obs, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
    return total / episodes


if __name__ == "__main__":
    torch.set_num_threads(1)
    learnt = train(50_000, seed=int(sys.argv[1]) if sys.argv[1:] else 0)
    print(f"greedy return {evaluate(learnt):.1f}")

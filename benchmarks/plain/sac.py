"""SAC in plain PyTorch, one file: what `ml(agent=SAC)` is timed against in benchmarks/rl.py.

Haarnoja et al. (2018, arXiv 1812.05905), as in CleanRL, with fused Adam, a target that follows in
one call, and critics frozen during the actor's loss. It learns Pendulum in a minute:

    python benchmarks/plain/sac.py [SEED]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import gymnasium as gym
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal


def network(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, outputs)
    )


def draw(actor: nn.Module, obs_B: Tensor) -> tuple[Tensor, Tensor]:
    """Actions `[B, A]` in -1..1, drawn with reparameterisation, and their log-densities `[B]`."""
    mean, log_std = actor(obs_B).chunk(2, -1)
    normal = Normal(mean, log_std.clamp(-20, 2).exp(), validate_args=False)
    x = normal.rsample()
    # log(1 - tanh(x)^2) in a form that does not underflow (SAC, appendix C).
    log_slope = 2 * (0.6931472 - x - F.softplus(-2 * x))
    return x.tanh(), (normal.log_prob(x) - log_slope).sum(-1)


class Replay:
    """The newest transitions, in preallocated tensors."""

    def __init__(self, capacity: int, obs_dim: int, action_dim: int):
        shapes = ((obs_dim,), (action_dim,), (), (obs_dim,), ())
        self.columns = [torch.zeros(capacity, *shape) for shape in shapes]
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
    env_id: str = "Pendulum-v1",
    capacity: int = 100_000,
    batch_size: int = 256,
    lr: float = 1e-3,
    discount: float = 0.99,
    tau: float = 0.005,
    seed_steps: int = 1000,
    every_step: Callable[[], None] = lambda: None,
) -> nn.Module:
    """The actor after `steps` environment steps, each of them learnt from after `seed_steps`."""
    torch.manual_seed(seed)
    env = gym.make(env_id)
    obs = torch.from_numpy(env.reset(seed=seed)[0])
    bound, obs_dim, action_dim = env.action_space.high, len(obs), len(env.action_space.high)
    actor = network(obs_dim, 2 * action_dim)
    critics = nn.ModuleList(network(obs_dim + action_dim, 1) for _ in range(2))
    targets = deepcopy(critics).requires_grad_(False)
    log_alpha = torch.zeros((), requires_grad=True)
    actor_optimizer = torch.optim.Adam(actor.parameters(), lr=lr, fused=True)
    critic_optimizer = torch.optim.Adam(critics.parameters(), lr=lr, fused=True)
    alpha_optimizer = torch.optim.Adam([log_alpha], lr=lr, fused=True)
    weights, target_weights = list(critics.parameters()), list(targets.parameters())
    replay = Replay(capacity, obs_dim, action_dim)
    for step in range(1, steps + 1):
        every_step()
        with torch.no_grad():
            if step <= seed_steps:
                action = 2 * torch.rand(action_dim) - 1
            else:
                action, _ = draw(actor, obs)
        stepped, reward, terminated, truncated, _ = env.step(action.numpy() * bound)
        next_obs = torch.from_numpy(stepped)
        replay.add(obs, action, reward, next_obs, terminated)
        obs = torch.from_numpy(env.reset()[0]) if terminated or truncated else next_obs
        if step < seed_steps:
            continue
        obs_B, action_B, reward_B, next_obs_B, terminated_B = replay.sample(batch_size)
        alpha = log_alpha.detach().exp()
        with torch.no_grad():
            next_action_B, log_prob_B = draw(actor, next_obs_B)
            inputs = torch.cat([next_obs_B, next_action_B], 1)
            next_q_B = torch.minimum(*(target(inputs) for target in targets)).squeeze(1)
            soft_B = next_q_B - alpha * log_prob_B
            target_B = (reward_B + discount * (1 - terminated_B) * soft_B)[:, None]
        inputs = torch.cat([obs_B, action_B], 1)
        critic_loss = sum(F.mse_loss(critic(inputs), target_B) for critic in critics)
        critic_optimizer.zero_grad()
        critic_loss.backward()
        critic_optimizer.step()

        critics.requires_grad_(False)
        drawn_B, log_prob_B = draw(actor, obs_B)
        inputs = torch.cat([obs_B, drawn_B], 1)
        q_B = torch.minimum(*(critic(inputs) for critic in critics)).squeeze(1)
        actor_loss = (alpha * log_prob_B - q_B).mean()
        actor_optimizer.zero_grad()
        actor_loss.backward()
        actor_optimizer.step()
        critics.requires_grad_(True)

        # The entropy aimed at is -1 per dimension.
        alpha_loss = -log_alpha.exp() * (log_prob_B.detach() - action_dim).mean()
        alpha_optimizer.zero_grad()
        alpha_loss.backward()
        alpha_optimizer.step()
        torch._foreach_lerp_(target_weights, weights, tau)
    env.close()
    return actor


def evaluate(actor: nn.Module, *, episodes: int = 20, env_id: str = "Pendulum-v1") -> float:
    """Mean return of episodes with the mean action."""
    env, total = gym.make(env_id), 0.0
    for episode in range(episodes):
        (obs, _), over = env.reset(seed=10_000 + episode), False
        while not over:
            with torch.no_grad():
                action = actor(torch.from_numpy(obs)).chunk(2, -1)[0].tanh().numpy()
            obs, reward, terminated, truncated, _ = env.step(action * env.action_space.high)
            total, over = total + float(reward), terminated or truncated
    return total / episodes


if __name__ == "__main__":
    torch.set_num_threads(1)
    learnt = train(5000, seed=int(sys.argv[1]) if sys.argv[1:] else 0)
    print(f"greedy return {evaluate(learnt):.1f}")

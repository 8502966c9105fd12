"""DDPG: a critic learns the value of actions, and an actor ascends its gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..replay import Replay, Space
from ..replay.batch import Tensors
from .blocks.encoder import Trunk, encoder
from .blocks.ensemble import Critics, td_loss
from .blocks.precision import full_precision
from .blocks.target import follow, frozen, target_of
from .log import Log
from .policy.box import UnitBox


class DDPG(nn.Module):
    """Deep deterministic policy gradient (Lillicrap et al., 2015, arXiv 1509.02971).

        y = r + d Q'(s', mu'(s'))
        L = (y - Q(s, a))^2 - Q(s, mu(s))

    The first term trains only the critic Q, the second only the actor mu; primes denote target networks,
    which follow with `tau`. The noise is Gaussian: the paper's correlated noise was not found to be better
    (Fujimoto et al., 2018, arXiv 1802.09477).

    Args:
        hidden: Widths of the actor's and the critic's layers, ints from 1.
        tau: Fraction of the distance that the targets move in each learning step, a float in [0, 1].
        noise: Standard deviation of the exploration noise, a float, relative to half the actions' range.
        random_steps: Environment steps with uniform actions before the actor's.
    """

    def __init__(
        self,
        obs_spec: Space | dict[str, Space],
        action_spec: Space | dict[str, Space],
        hidden: Sequence[int] = (256, 256),
        tau: float = 0.005,
        noise: float = 0.1,
        random_steps: int = 1000,
    ):
        super().__init__()
        self.box = UnitBox(action_spec, "DDPG")
        self.tau, self.noise, self.random_steps = tau, noise, random_steps
        self.actor = Actor(encoder(obs_spec, hidden), self.box.size)
        self.critic = Critics(encoder(obs_spec, ()), self.box.size, hidden, members=1)
        self.target_actor, self.target_critic = target_of(self.actor), target_of(self.critic)
        self.env_steps = 0

    def forward(self, obs: Tensors) -> Tensor:
        """`[B, *obs.shape]` to the best actions `[B, *action.shape]`."""
        return self.box.scale(self.actor(obs))

    def act(self, obs: Tensors) -> Tensor:
        """`[N, *obs.shape]` to actions `[N, *action.shape]`, with noise when training."""
        action = self.actor(obs)
        if self.training:
            action = explore(action, self.noise, uniform=self.env_steps < self.random_steps)
            self.env_steps += len(action)
        return self.box.scale(action)

    def learn(self, replay: Replay, log: Log) -> Tensor:
        batch = next(replay)
        follow(self.target_actor, self.actor, self.tau)
        follow(self.target_critic, self.critic, self.tau)
        with torch.no_grad():
            next_q = self.target_critic(batch.next_obs, self.target_actor(batch.next_obs))[0]
            target = batch.reward + batch.discount * next_q  # [B]
        q = self.critic(batch.obs, self.box.unscale(batch.action))  # [1, B]
        with frozen(self.critic):
            actor_loss = -self.critic(batch.obs, self.actor(batch.obs)).mean()
        log.q = q.detach().mean()
        return td_loss(q, target, batch, replay) + actor_loss

    def begin_task(self, task: int) -> None:
        """Explore again, as at the start."""
        self.env_steps = 0


class Actor(nn.Module):
    """`[B, *obs.shape]` to actions `[B, size]` in [-1, 1]."""

    def __init__(self, seen: Trunk, size: int):
        super().__init__()
        self.trunk = seen
        self.head = nn.Linear(self.trunk.out_features, size)

    def forward(self, obs: Tensors) -> Tensor:
        return full_precision(self.head(self.trunk(obs))).tanh()


def explore(action: Tensor, noise: float, *, uniform: bool) -> Tensor:
    """Actions in [-1, 1] with Gaussian noise, or, with `uniform`, uniformly random ones."""
    if uniform:
        return torch.empty_like(action).uniform_(-1, 1)
    return (action + noise * torch.randn_like(action)).clamp(-1, 1)

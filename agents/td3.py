"""TD3: DDPG with two critics, smoothed targets and a slower actor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..replay import Replay, Space
from .blocks.box import UnitBox
from .blocks.encoder import encoder
from .blocks.ensemble import Critics, td_loss
from .blocks.target import follow, frozen, target_of
from .ddpg import Actor, explore


class TD3(nn.Module):
    """Twin delayed DDPG (Fujimoto et al., 2018, arXiv 1802.09477).

        a' = clip(mu'(s') + clip(e, -c, c), -1, 1)    e ~ N(0, target_noise^2), c = noise_clip
        y  = r + d min(Q1'(s', a'), Q2'(s', a'))
        L  = (y - Q1(s, a))^2 + (y - Q2(s, a))^2 - Q1(s, mu(s))

    The last term trains the actor mu alone, the others the critics; it is there every `delay`-th
    learning step, and only then the targets move.

    Args:
        hidden: Widths of the actor's and the critics' layers.
        tau: How far the targets move.
        delay: Learning steps per step of the actor and the targets.
        noise: Deviation of the exploration, as a share of half the actions' range.
        target_noise, noise_clip: Of the actions that targets are computed with, likewise.
        random_steps: Environment steps of uniform actions before the actor's.
    """

    def __init__(
        self,
        obs_spec: Space | dict[str, Space],
        action_spec: Space | dict[str, Space],
        hidden: Sequence[int] = (256, 256),
        tau: float = 0.005,
        delay: int = 2,
        noise: float = 0.1,
        target_noise: float = 0.2,
        noise_clip: float = 0.5,
        random_steps: int = 1000,
    ):
        super().__init__()
        self.box = UnitBox(action_spec, "TD3")
        self.tau, self.delay, self.noise, self.random_steps = tau, delay, noise, random_steps
        self.target_noise, self.noise_clip = target_noise, noise_clip
        self.actor = Actor(obs_spec, self.box.size, hidden)
        self.critics = Critics(encoder(obs_spec, ()), self.box.size, hidden, members=2)
        self.target_actor, self.target_critics = target_of(self.actor), target_of(self.critics)
        self.env_steps = self.learning_steps = 0

    def forward(self, obs: Any) -> Tensor:
        """`[B, *obs.shape]` to the best actions `[B, *action.shape]`."""
        return self.box.scale(self.actor(obs))

    def act(self, obs: Any) -> Tensor:
        """`[N, *obs.shape]` to actions `[N, *action.shape]`, with noise when training."""
        action = self.actor(obs)
        if self.training:
            action = explore(action, self.noise, uniform=self.env_steps < self.random_steps)
            self.env_steps += len(action)
        return self.box.scale(action)

    def learn(self, replay: Replay, log: Any) -> Tensor:
        batch = next(replay)
        with torch.no_grad():
            next_q = self.target_critics(batch.next_obs, self.next_action(batch.next_obs))  # [2, B]
            target = batch.reward + batch.discount * next_q.amin(0)  # [B]
        q = self.critics(batch.obs, self.box.unscale(batch.action))  # [2, B]
        loss = td_loss(q, target, batch, replay)
        log.q = q.detach().mean()
        self.learning_steps += 1
        if self.learning_steps % self.delay == 0:
            follow(self.target_actor, self.actor, self.tau)
            follow(self.target_critics, self.critics, self.tau)
            with frozen(self.critics):
                loss = loss - self.critics(batch.obs, self.actor(batch.obs))[0].mean()
        return loss

    def next_action(self, next_obs: Any) -> Tensor:
        """The target actor's actions `[B, size]`, blurred: a narrow peak of Q' is an error of it."""
        action = self.target_actor(next_obs)
        noise = (self.target_noise * torch.randn_like(action)).clamp(
            -self.noise_clip, self.noise_clip
        )
        return (action + noise).clamp(-1, 1)

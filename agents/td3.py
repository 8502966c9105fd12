"""TD3: DDPG with two critics, smoothed targets and a slower actor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..replay import ConfigError, Replay, Space
from ..replay.batch import Tensors
from .blocks.ensemble import Critics, td_loss
from .blocks.target import follow, frozen, target_of
from .ddpg import Actor, explore
from .log import Log
from .policy.box import UnitBox
from .policy.parts import Part, trunk


class TD3(nn.Module):
    """Twin delayed DDPG (Fujimoto et al., 2018, arXiv 1802.09477).

        a' = clip(mu'(s') + clip(e, -c, c), -1, 1)    e ~ N(0, target_noise^2), c = noise_clip
        y  = r + d min(Q1'(s', a'), Q2'(s', a'))
        L  = (y - Q1(s, a))^2 + (y - Q2(s, a))^2 - Q1(s, mu(s))

    The last term trains only the actor mu, the others only the critics. It is included every `delay`-th
    learning step, and the targets move only then.

        lambda Q1(s, mu(s)) - |mu(s) - a|^2           lambda = 1 / (imitation mean|Q1(s, mu(s))|)

    is the actor's objective with `imitation`, for learning offline: TD3+BC (Fujimoto & Gu, 2021, arXiv
    2106.06860), whose alpha is 1 / imitation. a is the recorded action, in [-1, 1], and |.|^2 the mean over
    an action's numbers. The paper also normalises observations: `normalize_obs=true`.

    Args:
        hidden: Widths of the actor's and the critics' layers, ints from 1.
        tau: Fraction of the distance that the targets move each time, a float in [0, 1].
        delay: Learning steps per step of the actor and the targets.
        noise: Standard deviation of the exploration noise, a float, relative to half the actions' range.
        target_noise, noise_clip: Standard deviation and bound of the noise on the actions that targets are
            computed with, floats, likewise.
        random_steps: Environment steps with uniform actions before the actor's.
        imitation: Weight of imitating the recorded actions, a float; 0: none; 0.4 in the paper.
        encoder: Replaces our first layers, `[B, *obs.shape]` to features; the critics train it.
        policy: Replaces the actor: `[B, *obs.shape]` to actions `[B, *action.shape]` in the environment's
            units. Actions beyond its bounds are clipped and penalised.
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
        imitation: float = 0.0,
        encoder: nn.Module | None = None,
        policy: nn.Module | None = None,
    ):
        super().__init__()
        self.box = UnitBox(action_spec, "TD3")
        self.tau, self.delay, self.noise, self.random_steps = tau, delay, noise, random_steps
        self.target_noise, self.noise_clip = target_noise, noise_clip
        self.imitation = imitation
        self.actor: nn.Module
        if policy is not None:
            self.actor = GivenActor(policy, obs_spec, action_spec, self.box)
        else:
            self.actor = Actor(trunk(encoder, obs_spec, hidden, detach=True), self.box.size)
        self.critics = Critics(trunk(encoder, obs_spec, ()), self.box.size, hidden, members=2)
        self.target_actor, self.target_critics = target_of(self.actor), target_of(self.critics)
        self.env_steps = self.learning_steps = 0

    def forward(self, obs: Tensors) -> Tensor:
        """`[B, *obs.shape]` to the best actions `[B, *action.shape]`."""
        # The user's actor may leave the bounds.
        return self.box.scale(self.actor(obs).clamp(-1, 1))

    def act(self, obs: Tensors) -> Tensor:
        """`[N, *obs.shape]` to actions `[N, *action.shape]`, with noise when training."""
        action = self.actor(obs)
        if self.training:
            action = explore(action, self.noise, uniform=self.env_steps < self.random_steps)
            self.env_steps += len(action)
        return self.box.scale(action.clamp(-1, 1))

    def learn(self, replay: Replay, log: Log) -> Tensor:
        batch = next(replay)
        with torch.no_grad():
            next_q = self.target_critics(batch.next_obs, self.next_action(batch.next_obs))  # [2, B]
            target = batch.reward + batch.discount * next_q.amin(0)  # [B]
        action = self.box.unscale(batch.action)  # [B, size]
        q = self.critics(batch.obs, action)  # [2, B]
        loss = td_loss(q, target, batch, replay)
        log.q = q.detach().mean()
        self.learning_steps += 1
        if self.learning_steps % self.delay == 0:
            follow(self.target_actor, self.actor, self.tau)
            follow(self.target_critics, self.critics, self.tau)
            chosen = self.actor(batch.obs)  # [B, size]
            if isinstance(self.actor, GivenActor):
                excess = chosen - chosen.clamp(-1, 1)
                loss = loss + excess.square().sum(1).mean()
                chosen = chosen - excess
            with frozen(self.critics):
                worth = self.critics(batch.obs, chosen)[0]  # [B]
            if self.imitation:
                scale = 1 / (self.imitation * worth.detach().abs().mean())
                distance = F.mse_loss(chosen, action)
                log.distance = distance.detach()
                return loss - scale * worth.mean() + distance
            loss = loss - worth.mean()
        return loss

    def begin_task(self, task: int) -> None:
        """Explore again, as at the start."""
        self.env_steps = 0

    def next_action(self, next_obs: Tensors) -> Tensor:
        """The target actor's actions `[B, size]`, with noise: a narrow peak of Q' is likely an error."""
        action = self.target_actor(next_obs)
        noise = (self.target_noise * torch.randn_like(action)).clamp(
            -self.noise_clip, self.noise_clip
        )
        return (action + noise).clamp(-1, 1)


class GivenActor(nn.Module):
    """The user's module as an actor: actions `[B, size]`, scaled so that the bounds are -1 and 1.

    Raises:
        ConfigError: If it raises, is recurrent, or returns anything but actions.
    """

    def __init__(
        self,
        module: nn.Module,
        obs_spec: Space | dict[str, Space],
        action_spec: Space | dict[str, Space],
        box: UnitBox,
    ):
        super().__init__()
        self.part, self.box, name = Part(module), box, type(module).__name__
        if self.part.recurrent:
            raise ConfigError(
                f"policy={name} carries a state, which TD3 does not support. PPO does."
            )
        output, sources = self.part.probe(obs_spec, {})
        given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        if given != (2, *box.shape):
            raise ConfigError(
                f"policy={name}: expected actions (B, {', '.join(map(str, box.shape))}), got "
                f"{given}{sources.of(output)}."
            )

    def forward(self, obs: Tensors) -> Tensor:
        return self.box.unscale(self.part(obs)[0])

"""SAC: twin critics and an actor rewarded for its entropy, for continuous and discrete actions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..replay import ConfigError, Replay, Space
from ..replay.batch import Tensors
from .blocks.encoder import Layers
from .blocks.ensemble import Critics, td_loss
from .blocks.precision import full_precision
from .blocks.target import follow, frozen, target_of
from .log import Log
from .policy.box import UnitBox
from .policy.noise import Colored
from .policy.parts import trunk
from .traits import Traits

_LOG_STD = (-20.0, 2.0)


class SAC(nn.Module):
    """Soft actor-critic with a learnt temperature (Haarnoja et al., 2018, arXiv 1812.05905).

        V(s) = E_pi [min(Q1(s, a), Q2(s, a)) - alpha log pi(a|s)]
        y = r + d V'(s')
        L = (y - Q1(s, a))^2 + (y - Q2(s, a))^2 - V(s) - log alpha E_pi [log pi(a|s) + H]

    The squared errors train only the critics, V(s) only the actor, and the last term only the temperature,
    which rises while the entropy is below H. V' bootstraps from targets that follow with `tau`. The
    expectation is estimated from one sampled action; for choices it is exact, over all of them
    (Christodoulou, 2019, arXiv 1910.07207).

    Args:
        hidden: Widths of the actor's and the critics' layers, ints from 1.
        tau: Fraction of the distance that the targets move in each learning step, a float in [0, 1].
        alpha: The initial temperature, a float above 0.
        entropy: H in nats; default, as in the papers: -1 per number of an action, or 0.98 times the
            largest possible entropy for choices.
        color: Exponent of the noise that training draws continuous actions with (`Colored`): 1 is pink
            noise, whose pushes last; 0 is white noise, as in the paper.
        encoder: Replaces our first layers, `[B, *obs.shape]` to features; the critics train it.
    """

    def __init__(
        self,
        obs_spec: Space | dict[str, Space],
        action_spec: Space | dict[str, Space],
        hidden: Sequence[int] = (256, 256),
        tau: float = 0.005,
        alpha: float = 1.0,
        entropy: float | None = None,
        color: float = 1.0,
        encoder: nn.Module | None = None,
    ):
        super().__init__()
        self.discrete = False
        if not isinstance(action_spec, dict) and action_spec.discrete:
            self.discrete = True
            if action_spec.nvec or action_spec.binary:
                raise ConfigError(
                    "SAC needs continuous actions or one choice among n, but this environment's are "
                    f"{action_spec}. Take PPO or A2C."
                )
            size = width = action_spec.n
            default = 0.98 * math.log(size)
        else:
            self.box = UnitBox(action_spec, "SAC")
            size, width = self.box.size, 2 * self.box.size
            default = -float(size)
        self.noise = Colored(color) if color else None
        self.antelope_traits = Traits(logits=True)
        self.tau, self.entropy = tau, default if entropy is None else entropy
        seen = trunk(encoder, obs_spec, hidden, detach=True)
        self.actor = Layers(*seen, nn.Linear(seen.out_features, width))
        critic_encoder = trunk(encoder, obs_spec, ())
        self.critics = Critics(critic_encoder, size, hidden, members=2, discrete=self.discrete)
        self.target_critics = target_of(self.critics)
        self.log_alpha = nn.Parameter(torch.tensor(math.log(alpha)))

    def forward(self, obs: Tensors) -> Tensor:
        """`[B, *obs.shape]` to logits `[B, n]` over choices, or the mode `[B, *action.shape]`."""
        output = self.actor(obs)
        return output if self.discrete else self.box.scale(output.chunk(2, 1)[0].tanh())

    def act(self, obs: Tensors) -> Tensor:
        """`[N, *obs.shape]` to actions: drawn when training, else the likeliest."""
        if not self.training:
            return self(obs).argmax(1) if self.discrete else self(obs)
        if self.discrete:
            # argmax p / e with e ~ Exp(1) samples in proportion to p, without the checks of
            # torch.multinomial, which wait for a GPU.
            p = self.actor(obs).softmax(1)
            return (p / torch.empty_like(p).exponential_()).argmax(1)
        output = self.actor(obs)
        if self.noise is None:
            return self.box.scale(squashed_gaussian(output)[0])
        mean, log_std = full_precision(output).chunk(2, 1)
        noise = self.noise.next(len(mean), self.box.size, mean.device)
        return self.box.scale((mean + log_std.clamp(*_LOG_STD).exp() * noise).tanh())

    def learn(self, replay: Replay, log: Log) -> Tensor:
        batch = next(replay)
        follow(self.target_critics, self.critics, self.tau)
        alpha = self.log_alpha.detach().exp()
        with torch.no_grad():
            next_q, next_log_p = self.evaluate_actions(batch.next_obs, self.target_critics)
            target = batch.reward + batch.discount * (next_q - alpha * next_log_p)  # [B]
        if self.discrete:
            action = batch.action.expand(2, -1).unsqueeze(2)
            q = self.critics(batch.obs).gather(2, action).squeeze(2)  # [2, B]
        else:
            q = self.critics(batch.obs, self.box.unscale(batch.action))  # [2, B]
        critic_loss = td_loss(q, target, batch, replay)
        with frozen(self.critics):
            actor_q, log_p = self.evaluate_actions(batch.obs, self.critics)
        actor_loss = (alpha * log_p - actor_q).mean()
        entropy = -log_p.detach().mean()
        alpha_loss = self.log_alpha * (entropy - self.entropy)
        log.q, log.entropy, log.alpha = q.detach().mean(), entropy, alpha
        return critic_loss + actor_loss + alpha_loss

    def evaluate_actions(self, obs: Tensors, critics: Critics) -> tuple[Tensor, Tensor]:
        """`E_pi [min Q]` and `E_pi [log pi]` at `[B, *obs.shape]`, each `[B]`."""
        output = self.actor(obs)
        if self.discrete:
            log_p = full_precision(output).log_softmax(1)
            p = log_p.exp()
            return (p * critics(obs).amin(0)).sum(1), (p * log_p).sum(1)
        action, log_p = squashed_gaussian(output)
        return critics(obs, action).amin(0), log_p


def squashed_gaussian(output: Tensor) -> tuple[Tensor, Tensor]:
    """Actions `[B, size]` in (-1, 1) and their log-densities `[B]`, from `[B, 2 * size]`.

        a = tanh(u), u = mean + std e, e ~ N(0, 1)
        log pi(a) = sum_i [log N(u_i) - log(1 - tanh(u_i)^2)]

    Source: Haarnoja et al. (2018), arXiv 1812.05905, appendix C.
    """
    mean, log_std = full_precision(output).chunk(2, 1)
    log_std = log_std.clamp(*_LOG_STD)
    noise = torch.randn_like(mean)
    u = mean + log_std.exp() * noise
    log_normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    # log(1 - tanh(u)^2) without the subtraction, which is 0 in float32 for |u| >= 9.
    log_slope = 2 * (math.log(2) - u - F.softplus(-2 * u))
    return u.tanh(), (log_normal - log_slope).sum(1)

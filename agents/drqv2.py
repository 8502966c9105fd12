"""DrQ-v2: continuous control from pixels, stabilised by random shifts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..replay import ConfigError, Replay, Space
from .blocks.encoder import Trunk, encoder
from .blocks.ensemble import Critics, EnsembleLinear, td_loss
from .blocks.target import follow, frozen, target_of
from .ddpg import explore
from .log import Log
from .policy.box import UnitBox


class DrQV2(nn.Module):
    """Data-regularised Q, version 2 (Yarats et al., 2021, arXiv 2107.09645).

        h, h' = encode(shift(s)), encode(shift(s'))       a', b = mu(h') + e', mu(h) + e
        y = r + d min(Q1'(h', a'), Q2'(h', a'))
        L = (y - Q1(h, a))^2 + (y - Q2(h, a))^2 - min(Q1(h, b), Q2(h, b))

    The squared errors train the critics and the encoder, the last term only the actor mu. The noise
    e ~ clip(N(0, std^2), -noise_clip, noise_clip) shrinks over the environment's steps. The paper
    uses `nstep=3 frame_stack=3 action_repeat=2 lr=1e-4 batch_size=256 learn_every=2`.

    Args:
        hidden: Widths of the actor's and the critics' layers, ints from 1.
        features: Width, in units, that the encoder's output is projected to before them.
        tau: Fraction of the distance that the target critics move per learning step, in [0, 1].
        noise: First and last standard deviation of the actions' noise, relative to half their range.
        noise_steps: Environment steps over which it falls.
        noise_clip: Largest noise, a float, in actions that losses are computed with.
        random_steps: Environment steps with uniform actions before the actor's.
        pad: Largest shift of images `[B, C, H, W]`, in pixels.
    """

    def __init__(
        self,
        obs_spec: Space | dict[str, Space],
        action_spec: Space | dict[str, Space],
        hidden: Sequence[int] = (1024, 1024),
        features: int = 50,
        tau: float = 0.01,
        noise: tuple[float, float] = (1.0, 0.1),
        noise_steps: int = 100_000,
        noise_clip: float = 0.3,
        random_steps: int = 2000,
        pad: int = 4,
    ):
        super().__init__()
        self.box = UnitBox(action_spec, "DrQV2")
        self.tau, self.pad, self.random_steps = tau, pad, random_steps
        self.noise, self.noise_steps, self.noise_clip = tuple(noise), noise_steps, noise_clip
        self.encoder = convolutions(obs_spec)
        width = self.encoder.out_features
        policy = encoder(Space((features,)), hidden)
        head = nn.Linear(policy.out_features, self.box.size)
        self.actor = nn.Sequential(narrow(width, features), policy, head, nn.Tanh())
        self.critics = Critics(narrow(width, features), self.box.size, hidden)
        self.apply(orthogonal)
        self.target_critics = target_of(self.critics)
        self.env_steps = 0

    def forward(self, obs: Tensor) -> Tensor:
        """`[B, *obs.shape]` to the best actions `[B, *action.shape]`."""
        return self.box.scale(self.actor(self.encoder(obs)))

    def act(self, obs: Tensor) -> Tensor:
        """`[N, *obs.shape]` to actions `[N, *action.shape]`, with noise when training."""
        action = self.actor(self.encoder(obs))
        if self.training:
            action = explore(action, self.std, uniform=self.env_steps < self.random_steps)
            self.env_steps += len(action)
        return self.box.scale(action)

    @property
    def std(self) -> float:
        """The noise's current standard deviation, in units of [-1, 1]."""
        first, last = self.noise
        return first + (last - first) * min(1.0, self.env_steps / max(self.noise_steps, 1))

    def learn(self, replay: Replay, log: Log) -> Tensor:
        batch = next(replay)
        follow(self.target_critics, self.critics, self.tau)
        features = self.encoder(shift(batch.obs, self.pad))  # [B, width]
        with torch.no_grad():
            next_features = self.encoder(shift(batch.next_obs, self.pad))
            next_q = self.target_critics(next_features, self.noisy(self.actor(next_features)))
            target = batch.reward + batch.discount * next_q.amin(0)  # [B]
        q = self.critics(features, self.box.unscale(batch.action))  # [2, B]
        # The actor uses the critics' features but does not train the encoder.
        seen = features.detach()
        with frozen(self.critics):
            actor_q = self.critics(seen, self.noisy(self.actor(seen))).amin(0)  # [B]
        log.q, log.noise = q.detach().mean(), self.std
        return td_loss(q, target, batch, replay) - actor_q.mean()

    def begin_task(self, task: int) -> None:
        """Explore again, as at the start."""
        self.env_steps = 0

    def noisy(self, action: Tensor) -> Tensor:
        """Actions `[B, size]` with clipped noise; gradients pass as if nothing had been clipped."""
        clip = self.noise_clip
        noise = (self.std * torch.randn_like(action)).clamp(-clip, clip)
        return action + ((action + noise).clamp(-1, 1) - action).detach()


def shift(images: Tensor, pad: int) -> Tensor:
    """Every image `[B, C, H, W]` shifted by up to `pad` pixels in each direction, repeating its edge."""
    size, height, width = len(images), *images.shape[2:]
    down, right = torch.randint(-pad, pad + 1, (2, size, 1), device=images.device)
    row = (torch.arange(height, device=images.device) + down).clamp(0, height - 1)  # [B, H]
    column = (torch.arange(width, device=images.device) + right).clamp(0, width - 1)  # [B, W]
    rows = images.gather(2, row[:, None, :, None].expand_as(images))
    return rows.gather(3, column[:, None, None, :].expand_as(images))


def convolutions(space: Space | dict[str, Space]) -> Trunk:
    """Images `[B, C, H, W]` in [0, 1] to flat features.

    Raises:
        ConfigError: If observations are not images of 16x16 pixels or more.
    """
    if isinstance(space, dict) or len(space.shape) != 3 or min(space.shape[1:]) < 16:
        given = f"a dict of {', '.join(space)}" if isinstance(space, dict) else str(space)
        raise ConfigError(
            "DrQV2 learns from images of 16x16 pixels or more, but this environment's observations "
            f"are {given}. Take SAC or TD3."
        )
    layers: list[nn.Module] = [Centre(), nn.Conv2d(space.shape[0], 32, 3, stride=2), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(32, 32, 3), nn.ReLU()]
    height, width = ((side - 3) // 2 + 1 - 6 for side in space.shape[1:])
    return Trunk([*layers, nn.Flatten()], 32 * height * width)


class Centre(nn.Module):
    """Pixels in [0, 1] to [-0.5, 0.5]."""

    def forward(self, images: Tensor) -> Tensor:
        return images - 0.5


def narrow(width: int, features: int) -> Trunk:
    return Trunk([nn.Linear(width, features), nn.LayerNorm(features), nn.Tanh()], features)


def orthogonal(module: nn.Module) -> None:
    """The paper's initial weights: orthogonal, for convolutions scaled for ReLU; zero biases."""
    if isinstance(module, nn.Conv2d):
        nn.init.orthogonal_(module.weight, nn.init.calculate_gain("relu"))
    elif isinstance(module, nn.Linear):
        nn.init.orthogonal_(module.weight)
    elif isinstance(module, EnsembleLinear):
        for weight in module.weight.unbind():
            nn.init.orthogonal_(weight)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)

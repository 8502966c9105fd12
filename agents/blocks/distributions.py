"""From a network's output to a distribution over actions, whatever the action space.

One action is one event: `log_prob` and `entropy` are summed over its parts, and have the shape of the
batch, `[B]`. The distributions are written out, because they are made anew at every step and torch's
own cost three times as much on a batch of 8.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from ...replay import Space


class ActionHead(nn.Module):
    """The end of a policy: a network's output `[B, n]` to a distribution over actions.

        Discrete       Categorical(softmax(output))             values int64 [B]
        MultiDiscrete  one categorical per part of the output   values int64 [B, len(nvec)]
        MultiBinary    Bernoulli(sigmoid(output))               values int64 [B, n]
        Box            N(output, exp(log_std)^2)                values float32 [B, *shape]

    The deviation of a Gaussian is a parameter of its own and does not depend on the observation
    (Schulman et al., 2017, arXiv 1707.06347). Its values are in units in which a bounded dimension
    spans [-1, 1], and may lie outside: `executable` turns them into the environment's.
    """

    def __init__(self, space: Space):
        super().__init__()
        self.space = space
        if space.discrete:
            return
        self.log_std = nn.Parameter(torch.zeros(space.shape))
        low, high = _bound(space, space.low, -math.inf), _bound(space, space.high, math.inf)
        bounded = torch.isfinite(low) & torch.isfinite(high)
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)
        self.register_buffer("centre", torch.where(bounded, (low + high) / 2, 0), persistent=False)
        self.register_buffer("scale", torch.where(bounded, (high - low) / 2, 1), persistent=False)

    def forward(self, output: Tensor) -> Distribution:
        output, space = output.float(), self.space
        if space.binary:
            return Bernoulli(output)
        if space.nvec:
            return MultiCategorical(output, space.nvec)
        if space.discrete:
            return Categorical(output)
        return Gaussian(output.view(*output.shape[:-1], *space.shape), self.log_std)

    def executable(self, value: Tensor) -> Tensor:
        """What the environment is given for a value of the distribution: clipped to its bounds."""
        if self.space.discrete:
            return value
        return (value * self.scale + self.centre).clamp(self.low, self.high)


class Categorical(Distribution):
    """One choice of n: logits `[B, n]`, values int64 `[B]`."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (the name is torch's)

    def __init__(self, logits: Tensor):
        self.log_p = logits.log_softmax(-1)
        super().__init__(logits.shape[:-1], validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        p = self.log_p.exp().expand(*sample_shape, *self.log_p.shape)
        # The first of n exponential clocks with rates p rings in proportion to p, which is how
        # torch.multinomial draws too, after checks that wait for a GPU.
        return (p / torch.empty_like(p).exponential_()).argmax(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.log_p.gather(-1, value.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        return -(self.log_p.exp() * self.log_p).sum(-1)

    @property
    def mode(self) -> Tensor:
        return self.log_p.argmax(-1)


class MultiCategorical(Distribution):
    """Independent choices: logits `[B, sum(nvec)]`, values int64 `[B, len(nvec)]`."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, logits: Tensor, nvec: tuple[int, ...]):
        self.parts = [Categorical(part) for part in logits.split(nvec, -1)]
        super().__init__(logits.shape[:-1], torch.Size([len(nvec)]), validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return torch.stack([part.sample(sample_shape) for part in self.parts], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        pairs = zip(self.parts, value.unbind(-1), strict=True)
        return torch.stack([part.log_prob(v) for part, v in pairs]).sum(0)

    def entropy(self) -> Tensor:
        return torch.stack([part.entropy() for part in self.parts]).sum(0)

    @property
    def mode(self) -> Tensor:
        return torch.stack([part.mode for part in self.parts], -1)


class Bernoulli(Distribution):
    """Independent yes or no: logits `[B, n]`, values int64 `[B, n]`."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, logits: Tensor):
        self.logits = logits
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        p = self.logits.sigmoid().expand(*sample_shape, *self.logits.shape)
        return (torch.rand_like(p) < p).long()

    def log_prob(self, value: Tensor) -> Tensor:
        # log p = -softplus(-x) and log(1 - p) = -softplus(x).
        return -F.softplus(torch.where(value == 1, -self.logits, self.logits)).sum(-1)

    def entropy(self) -> Tensor:
        # -p log p - (1 - p) log(1 - p) = softplus(x) - p x.
        return (F.softplus(self.logits) - self.logits.sigmoid() * self.logits).sum(-1)

    @property
    def mode(self) -> Tensor:
        return (self.logits > 0).long()


class Gaussian(Distribution):
    """Independent normal numbers: means `loc` and values float32 `[B, *shape]`, log_std `[*shape]`."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, loc: Tensor, log_std: Tensor):
        self.loc, self.log_std = loc, log_std
        batch = loc.shape[: loc.dim() - log_std.dim()]
        super().__init__(batch, log_std.shape, validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        loc = self.loc.expand(*sample_shape, *self.loc.shape)
        return loc + self.log_std.exp() * torch.randn_like(loc)

    def log_prob(self, value: Tensor) -> Tensor:
        z = (value - self.loc) * (-self.log_std).exp()
        constant = self.log_std.sum() + self.log_std.numel() * math.log(2 * math.pi) / 2
        return z.square().flatten(len(self.batch_shape)).sum(-1) / -2 - constant

    def entropy(self) -> Tensor:
        constant = self.log_std.numel() * (1 + math.log(2 * math.pi)) / 2
        return (self.log_std.sum() + constant).expand(self.batch_shape)

    @property
    def mode(self) -> Tensor:
        return self.loc


def _bound(space: Space, bound: float | Tensor | None, default: float) -> Tensor:
    value = torch.as_tensor(default if bound is None else bound, dtype=torch.float32)
    return value.expand(space.shape).clone()

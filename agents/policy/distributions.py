"""Distributions over actions: one choice, several, yes or no, numbers, and several actions by name.

One action is one event: `log_prob` and `entropy` are float32, summed over its parts, and have the shape of
the batch: `[B]`, or `[B, T]` for sequences. They do not wrap torch's own distributions, because one is
constructed at every step, and torch's take three times as long on a batch of 8.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution
from torch.types import _size

from ...replay import Space


def choices(space: Space, logits: Tensor) -> Categorical | MultiCategorical | Bernoulli:
    """The distribution over a discrete space's values with logits `[..., space.n]`, computed in float32.

    Discrete       Categorical(softmax(logits))              values int64 [...]
    MultiDiscrete  one categorical per part of the logits    values int64 [..., len(nvec)]
    MultiBinary    Bernoulli(sigmoid(logits))                values int64 [..., n]
    """
    logits = logits.float()
    if space.binary:
        return Bernoulli(logits)
    return MultiCategorical(logits, space.nvec) if space.nvec else Categorical(logits)


class Categorical(Distribution):
    """One choice of n: logits `[..., n]`, values int64 `[...]`."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (the name is torch's)

    def __init__(self, logits: Tensor):
        self.log_p = logits.log_softmax(-1)
        super().__init__(logits.shape[:-1], validate_args=False)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        p = self.log_p.exp()
        if sample_shape:
            p = p.expand(*sample_shape, *p.shape)
        # The first of n exponential clocks with rates p to ring is distributed as p. torch.multinomial
        # samples the same way, but only after checks that synchronise with a GPU.
        return (p / torch.empty_like(p).exponential_()).argmax(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        log_p = self.log_p
        if value.dim() >= log_p.dim():
            log_p = log_p.expand(*value.shape, -1)
        return log_p.gather(-1, value.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        # A masked choice, with a logit of -inf, contributes 0, not 0 * inf = NaN.
        return -(self.log_p.exp() * self.log_p.clamp(min=-1e30)).sum(-1)

    @property
    def mode(self) -> Tensor:
        return self.log_p.argmax(-1)


class MultiCategorical(Distribution):
    """Independent choices: logits `[..., sum(nvec)]`, values int64 `[..., len(nvec)]`."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, logits: Tensor, nvec: tuple[int, ...]):
        self.parts = [Categorical(part) for part in logits.split(nvec, -1)]
        super().__init__(logits.shape[:-1], torch.Size([len(nvec)]), validate_args=False)

    def sample(self, sample_shape: _size = ()) -> Tensor:
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
    """Independent yes or no: logits `[..., n]`, values int64 `[..., n]`."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, logits: Tensor):
        self.logits = logits
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=False)

    def sample(self, sample_shape: _size = ()) -> Tensor:
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
    """Independent normal numbers: means `loc` and values float32 `[..., *shape]`, log_std `[*shape]`."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, loc: Tensor, log_std: Tensor):
        self.loc, self.log_std = loc, log_std
        batch = loc.shape[: loc.dim() - log_std.dim()]
        super().__init__(batch, log_std.shape, validate_args=False)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        loc = self.loc.detach().expand(*sample_shape, *self.loc.shape)
        return loc + self.log_std.detach().exp() * torch.randn_like(loc)

    def log_prob(self, value: Tensor) -> Tensor:
        z = (value - self.loc) * (-self.log_std).exp()
        constant = self.log_std.sum() + self.log_std.numel() * math.log(2 * math.pi) / 2
        batch = z.shape[: z.dim() - self.log_std.dim()]
        return z.square().reshape(*batch, -1).sum(-1) / -2 - constant

    def entropy(self) -> Tensor:
        constant = self.log_std.numel() * (1 + math.log(2 * math.pi)) / 2
        return (self.log_std.sum() + constant).expand(self.batch_shape)

    @property
    def mode(self) -> Tensor:
        return self.loc


class Joint(Distribution):
    """Independent actions by name; values are dicts."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, parts: dict[str, Distribution]):
        self.parts = parts
        super().__init__(next(iter(parts.values())).batch_shape, validate_args=False)

    def sample(self, sample_shape: _size = ()) -> dict[str, Tensor]:  # type: ignore[override]
        return {name: part.sample(sample_shape) for name, part in self.parts.items()}

    def log_prob(self, value: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return torch.stack([part.log_prob(value[n]) for n, part in self.parts.items()]).sum(0)

    def entropy(self) -> Tensor:
        return torch.stack([part.entropy() for part in self.parts.values()]).sum(0)

    @property
    def mode(self) -> dict[str, Tensor]:  # type: ignore[override]
        return {name: part.mode for name, part in self.parts.items()}


def parts_of(policy: Distribution) -> Any:
    """A distribution over nested dicts as nested dicts of distributions; any other unchanged."""
    if isinstance(policy, Joint):
        return {name: parts_of(part) for name, part in policy.parts.items()}
    return policy

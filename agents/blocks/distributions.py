"""From a network's output to a distribution over actions, whatever the action space.

One action is one event: `log_prob` and `entropy` are summed over its parts, and have the shape of the
batch, `[B]`. The distributions are written out, because they are made anew at every step and torch's
own cost three times as much on a batch of 8.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from ...replay import Space


def action_head(space: Space | dict[str, Space]) -> DiscreteHead | BoxHead | DictHead:
    """The end of a policy, for actions of any space: from a network's output to a distribution.

        Discrete       Categorical(softmax(output))             values int64 [B]
        MultiDiscrete  one categorical per part of the output   values int64 [B, len(nvec)]
        MultiBinary    Bernoulli(sigmoid(output))               values int64 [B, n]
        Box            N(output, exp(log_std)^2)                values float32 [B, *shape]
        a dict         one of these per name, independent       values {name: ...}

    A head is called with outputs `[B, out_features]`.

    >>> head = action_head(Space((3,), torch.int64, discrete=True))
    >>> policy = head(torch.zeros(2, head.out_features))
    >>> policy.mode, policy.log_prob(policy.sample()).exp()
    (tensor([0, 0]), tensor([0.3333, 0.3333]))
    """
    if isinstance(space, dict):
        return DictHead(space)
    return DiscreteHead(space) if space.discrete else BoxHead(space)


class DiscreteHead(nn.Module):
    """One choice, several, or yes or no several times.

    `executable` gives what the environment is given for a value of the distribution, `estimate` what
    a model's `forward` gives for an output.
    """

    clips = False  # Whether `executable` changes values.
    out_features: int

    def __init__(self, space: Space):
        super().__init__()
        self.space, self.out_features = space, space.n

    def forward(self, output: Tensor) -> Distribution:
        if self.space.binary:
            return Bernoulli(output.float())
        if self.space.nvec:
            return MultiCategorical(output.float(), self.space.nvec)
        return Categorical(output.float())

    def executable(self, value: Any) -> Any:
        return value

    def estimate(self, output: Tensor) -> Tensor:
        return output


class BoxHead(nn.Module):
    """Continuous numbers, normally distributed.

    The deviation is a parameter of its own and does not depend on the observation (Schulman et al.,
    2017, arXiv 1707.06347). Values are in units in which a bounded dimension spans [-1, 1], and may
    lie outside.
    """

    clips = True
    out_features: int
    low: Tensor
    high: Tensor
    centre: Tensor
    radius: Tensor

    def __init__(self, space: Space):
        super().__init__()
        self.shape, self.out_features = space.shape, space.n
        self.log_std = nn.Parameter(torch.zeros(space.shape))
        low, high = _bound(space, space.low, -math.inf), _bound(space, space.high, math.inf)
        bounded = torch.isfinite(high - low)
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)
        self.register_buffer("centre", torch.where(bounded, (low + high) / 2, 0), persistent=False)
        self.register_buffer("radius", torch.where(bounded, (high - low) / 2, 1), persistent=False)

    def forward(self, output: Tensor) -> Distribution:
        return Gaussian(output.float().reshape(-1, *self.shape), self.log_std)

    def executable(self, value: Any) -> Any:
        """In the environment's units, clipped to its bounds."""
        return (self.centre + self.radius * value).clamp(self.low, self.high)

    def estimate(self, output: Tensor) -> Tensor:
        """The mean action, in the environment's units."""
        return self.executable(self(output).mode)


class DictHead(nn.Module):
    """Several actions at once: the output is split among them, in the dict's order."""

    def __init__(self, spaces: dict[str, Space]):
        super().__init__()
        heads: dict[str, Any] = {name: action_head(space) for name, space in spaces.items()}
        # Not a ModuleDict: names of actions are anything, those of modules are not.
        self.names, self.heads = list(heads), nn.ModuleList(heads.values())
        self.sizes = [head.out_features for head in heads.values()]
        self.out_features = sum(self.sizes)
        self.clips = any(head.clips for head in heads.values())

    def forward(self, output: Tensor) -> Distribution:
        return Joint({name: head(part) for name, head, part in self._parts(output)})

    def executable(self, value: Any) -> Any:
        heads: Any = zip(self.names, self.heads, strict=True)
        return {name: head.executable(value[name]) for name, head in heads}

    def estimate(self, output: Tensor) -> dict[str, Tensor]:
        return {name: head.estimate(part) for name, head, part in self._parts(output)}

    def _parts(self, output: Tensor) -> Iterator[tuple[str, Any, Tensor]]:
        return zip(self.names, self.heads, output.split(self.sizes, -1), strict=True)


class Categorical(Distribution):
    """One choice of n: logits `[B, n]`, values int64 `[B]`."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (the name is torch's)

    def __init__(self, logits: Tensor):
        self.log_p = logits.log_softmax(-1)
        super().__init__(logits.shape[:-1], validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        p = self.log_p.exp()
        if sample_shape:
            p = p.expand(*sample_shape, *p.shape)
        # The first of n exponential clocks with rates p rings in proportion to p, which is how
        # torch.multinomial draws too, after checks that wait for a GPU.
        return (p / torch.empty_like(p).exponential_()).argmax(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        log_p = self.log_p
        if value.dim() >= log_p.dim():
            log_p = log_p.expand(*value.shape, -1)
        return log_p.gather(-1, value.unsqueeze(-1)).squeeze(-1)

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

    def sample(self, sample_shape: Any = ()) -> dict[str, Tensor]:  # type: ignore[override]
        return {name: part.sample(sample_shape) for name, part in self.parts.items()}

    def log_prob(self, value: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return torch.stack([part.log_prob(value[n]) for n, part in self.parts.items()]).sum(0)

    def entropy(self) -> Tensor:
        return torch.stack([part.entropy() for part in self.parts.values()]).sum(0)

    @property
    def mode(self) -> dict[str, Tensor]:  # type: ignore[override]
        return {name: part.mode for name, part in self.parts.items()}


def _bound(space: Space, bound: float | Tensor | None, default: float) -> Tensor:
    value = torch.as_tensor(default if bound is None else bound, dtype=torch.float32)
    return value.expand(space.shape).clone()

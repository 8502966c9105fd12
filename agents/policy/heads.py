"""Turns a network's output into a distribution over actions, for any action space.

`distribution` accepts the output of any module's forward. `action_head` is for our own networks, whose
standard deviations are parameters; for choices and dicts it constructs the same distributions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from ...replay import ConfigError, Space
from ...replay.batch import Tensors
from ...replay.tree import zip_trees
from .distributions import Bernoulli, Categorical, Gaussian, Joint, MultiCategorical, choices
from .fitted import fitted
from .gaussians import DiagonalGaussian, SquashedGaussian
from .spaces import bounds, gymnasium_name


def logits_shape(space: Space) -> tuple[int, ...]:
    """The shape of one action's input to `distribution`: `(2d,)` for a Box of d numbers.

    >>> logits_shape(Space((7,), torch.int64, discrete=True, nvec=(3, 4))), logits_shape(Space((3, 2)))
    ((7,), (12,))
    """
    return (space.n,) if space.discrete else (2 * space.n,)


def distribution(
    space: Space | dict[str, Any],
    output: object,
    name: str = "action",
    *,
    batch_shape: tuple[int, ...] | None = None,
) -> Any:
    """The distribution over actions that a module's output parametrises.

        Discrete       Categorical(softmax(output))                         values int64 [...]
        MultiDiscrete  one categorical per part of the output               values int64 [..., len(nvec)]
        MultiBinary    Bernoulli(sigmoid(output))                           values int64 [..., n]
        Box, bounded   low + (high - low) (tanh(u) + 1) / 2, u ~ N(m, s^2)  values float32 [..., *shape]
        Box, other     N(m, s^2), in the space's own units                  values float32 [..., *shape]
        a dict         one of these per name, independent                   values {name: ...}

    For a Box, the output is the means and then the log standard deviations, each in the order of
    `value.flatten()`. Samples for a Box that is unbounded, or bounded on some sides only, may lie outside
    the space: `executable` clips them.

    Args:
        space: Space of the action, or a dict of spaces.
        output: Logits `[..., *logits_shape(space)]`, or a torch `Distribution` over values of the space;
            for a dict space, a dict with either under every name (other names are ignored).
        name: The head's name in errors.
        batch_shape: The dimensions that do not belong to the action, if known. A distribution with another
            batch is then refused, and singleton dimensions are unambiguous.

    Returns:
        A `Distribution` with `sample()`, `mode`, and `log_prob(value)` and `entropy()`, which are float32
        and summed over everything but the batch.

    Raises:
        ConfigError: If the output does not fit the space, naming the head.

    >>> policy = distribution(Space((3,), torch.int64, discrete=True), torch.zeros(2, 3))
    >>> policy.mode, policy.log_prob(policy.sample()).exp()
    (tensor([0, 0]), tensor([0.3333, 0.3333]))
    """
    if isinstance(space, dict):
        return _joint(space, output, "", batch_shape)
    if isinstance(output, Categorical | MultiCategorical | Bernoulli | Gaussian | DiagonalGaussian):
        return _own(space, output, name, batch_shape)
    if isinstance(output, Distribution):
        return fitted(space, output, name, batch_shape)
    return _of_tensor(space, output, name, batch_shape)


def _of_tensor(
    space: Space, output: object, name: str, batch_shape: tuple[int, ...] | None
) -> Distribution:
    """The distribution with these logits of choices, or these means and log standard deviations."""
    (width,) = logits_shape(space)
    if (
        not isinstance(output, Tensor)
        or not output.dim()
        or output.shape[-1] != width
        or (batch_shape is not None and output.shape[:-1] != batch_shape)
    ):
        lead = "B" if batch_shape is None else ", ".join(map(str, batch_shape))
        raise ConfigError(
            f"head {name!r}: expected ({lead}, {width}) for {gymnasium_name(space)}, got {_seen(output)}."
        )
    if space.discrete:
        return choices(space, output)
    output = output.float()
    shape = (*output.shape[:-1], *space.shape)
    loc, log_std = (part.reshape(shape) for part in output.chunk(2, -1))
    low, high, bounded = bounds(space, output.device)
    if bounded:
        return SquashedGaussian(loc, log_std, low, high)
    return DiagonalGaussian(loc, log_std, len(space.shape))


def _joint(
    spaces: dict[str, Any], output: object, within: str, batch_shape: tuple[int, ...] | None
) -> Joint:
    """One distribution per name, all with the same batch shape."""
    if isinstance(output, Joint):
        output = output.parts
    names = ", ".join(repr(f"{within}{name}") for name in spaces)
    if not isinstance(output, dict):
        raise ConfigError(f"Expected a dict with the heads {names}, got {_seen(output)}.")
    if missing := [f"{within}{name}" for name in spaces if name not in output]:
        raise ConfigError(
            f"Expected a dict with the heads {names}; {', '.join(map(repr, missing))} is missing from "
            f"{', '.join(map(repr, output)) or 'an empty one'}."
        )
    parts: dict[str, Distribution] = {}
    for name, space in spaces.items():
        path = f"{within}{name}"
        if isinstance(space, dict):
            part: Distribution = _joint(space, output[name], f"{path}/", batch_shape)
        else:
            part = distribution(space, output[name], path, batch_shape=batch_shape)
        parts[name] = part
        first = next(iter(parts))
        if part.batch_shape != parts[first].batch_shape:
            raise ConfigError(
                f"head {path!r}: expected the batch {tuple(parts[first].batch_shape)} of head "
                f"{within + first!r}, got {tuple(part.batch_shape)}."
            )
    return Joint(parts)


def _own(
    space: Space, given: Distribution, name: str, batch_shape: tuple[int, ...] | None
) -> Distribution:
    """One of our own distributions, unchanged, if its values are actions of the space."""
    if isinstance(given, Categorical):
        fits = (given.log_p.shape[-1],) == space.shape and not (space.nvec or space.binary)
    elif isinstance(given, MultiCategorical):
        fits = tuple(part.log_p.shape[-1] for part in given.parts) == space.nvec
    else:
        fits = space.binary if isinstance(given, Bernoulli) else True
    discrete = isinstance(given, Categorical | MultiCategorical | Bernoulli)
    fits = fits and discrete == space.discrete and given.event_shape == space.value_shape
    before = ("B",) if batch_shape is None else batch_shape
    if not fits or (batch_shape is not None and given.batch_shape != batch_shape):
        expected = ", ".join(map(str, (*before, *space.value_shape)))
        raise ConfigError(
            f"head {name!r}: expected values ({expected}) for {gymnasium_name(space)}, got "
            f"{type(given).__name__} with values {tuple(given.batch_shape + given.event_shape)}."
        )
    return given


def _seen(output: object) -> str:
    if isinstance(output, Tensor):
        return str(tuple(output.shape))
    if isinstance(output, dict):
        return f"a dict of {', '.join(map(repr, output)) or 'nothing'}"
    return type(output).__name__


def executable(space: Space | dict[str, Any], value: Tensors) -> Any:
    """The value `[..., *shape]`, or dicts of values, with numbers clipped to the space's bounds."""
    return zip_trees(_clipped, space, value)


def _clipped(space: Space, value: Tensor) -> Tensor:
    if space.discrete:
        return value
    low, high, _ = bounds(space, value.device)
    return value.clamp(low, high)


def estimate(space: Space | dict[str, Space], policy: Distribution) -> Any:
    """What a model's `forward` returns for a policy: logits of choices, or the mean of numbers."""
    if isinstance(space, dict):
        parts = policy.parts  # type: ignore[attr-defined]
        return {name: estimate(part, parts[name]) for name, part in space.items()}
    if not space.discrete:
        return policy.mode
    for name in ("log_p", "logits"):
        if isinstance(logits := getattr(policy, name, None), Tensor):
            return logits
    if space.nvec and hasattr(policy, "parts"):
        return torch.cat([part.log_p for part in policy.parts], -1)
    # Without logits, the mode serves as the score.
    sizes = space.nvec or (space.n,)
    if space.binary:
        return policy.mode.float() * 2 - 1
    columns = policy.mode.unsqueeze(-1) if not space.nvec else policy.mode
    scores = [F.one_hot(columns[..., i], n).float() for i, n in enumerate(sizes)]
    return torch.cat(scores, -1)


def action_head(space: Space | dict[str, Space]) -> DiscreteHead | BoxHead | DictHead:
    """The last part of a policy, for any action space: turns a network's output into a distribution.

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
    """One choice, several choices, or several yes-or-no decisions.

    `executable` returns what the environment receives for a value of the distribution, `estimate` what
    a model's `forward` returns for an output.
    """

    clips = False  # Whether `executable` may change values.
    out_features: int

    def __init__(self, space: Space):
        super().__init__()
        self.space, self.out_features = space, space.n

    def forward(self, output: Tensor) -> Distribution:
        return choices(self.space, output)

    def executable(self, value: object) -> Any:
        return value

    def estimate(self, output: Tensor) -> Tensor:
        return output


class BoxHead(nn.Module):
    """Continuous numbers, normally distributed.

    The standard deviation is a separate parameter that does not depend on the observation (Schulman et al.,
    2017, arXiv 1707.06347). Values are in units in which a bounded dimension spans [-1, 1], and may lie
    outside of it.
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
        low, high, _ = bounds(space, torch.device("cpu"))
        bounded = torch.isfinite(high - low)
        self.register_buffer("low", low.clone(), persistent=False)
        self.register_buffer("high", high.clone(), persistent=False)
        self.register_buffer("centre", torch.where(bounded, (low + high) / 2, 0), persistent=False)
        self.register_buffer("radius", torch.where(bounded, (high - low) / 2, 1), persistent=False)

    def forward(self, output: Tensor) -> Distribution:
        loc = output.float().reshape(*output.shape[:-1], *self.shape)
        return Gaussian(loc, self.log_std)

    def executable(self, value: Tensor) -> Tensor:
        """The value in the environment's units, clipped to its bounds."""
        return (self.centre + self.radius * value).clamp(self.low, self.high)

    def estimate(self, output: Tensor) -> Tensor:
        """The mean action, in the environment's units."""
        return self.executable(self(output).mode)


class DictHead(nn.Module):
    """Several actions at once: the output is split among them, in the dict's order."""

    def __init__(self, spaces: dict[str, Space]):
        super().__init__()
        heads: dict[str, Any] = {name: action_head(space) for name, space in spaces.items()}
        # Not a ModuleDict: an action's name may hold a dot, or be `keys`.
        self.names, self.heads = list(heads), nn.ModuleList(heads.values())
        self.sizes = [head.out_features for head in heads.values()]
        self.out_features = sum(self.sizes)
        self.clips = any(head.clips for head in heads.values())

    def forward(self, output: Tensor) -> Distribution:
        return Joint({name: head(part) for name, head, part in self._parts(output)})

    def executable(self, value: dict[str, Any]) -> dict[str, Any]:
        heads: Any = zip(self.names, self.heads, strict=True)
        return {name: head.executable(value[name]) for name, head in heads}

    def estimate(self, output: Tensor) -> dict[str, Tensor]:
        return {name: head.estimate(part) for name, head, part in self._parts(output)}

    def _parts(self, output: Tensor) -> Iterator[tuple[str, Any, Tensor]]:
        return zip(self.names, self.heads, output.split(self.sizes, -1), strict=True)

"""Adapts torch distributions to an action space."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch import distributions as torchs
from torch.distributions import Distribution, constraints
from torch.types import _size

from ...replay import ConfigError, Space
from .gaussians import HAIR, summed
from .spaces import bounds, gymnasium_name


def fitted(
    space: Space, given: Distribution, name: str, batch_shape: tuple[int, ...] | None = None
) -> Fitted:
    """A torch `Distribution` with one event per action, whatever its batch and event shapes are.

    Its values are `[*batch, *shape]`, where `shape` may belong to its batch shape (`Normal`), to its event
    shape (`Independent`) or to both; or they have as many numbers in another shape (`MultiBinary((2, 3))`
    is stored as 6 in a row).

    Args:
        space: Space of the action.
        given: The torch distribution.
        name: The head's name in errors.
        batch_shape: As in `distribution`.

    Raises:
        ConfigError: If its values have another kind, or a shape that does not fit.
    """
    whole, shape = tuple(given.batch_shape + given.event_shape), tuple(space.value_shape)
    lead = _lead(whole, shape) if batch_shape is None else tuple(batch_shape)
    values = ", ".join(map(str, ("B", *shape) if batch_shape is None else (*batch_shape, *shape)))
    wrong = _wrong_kind(space, given)
    if not wrong:
        fits = lead is not None and whole[: len(lead)] == lead
        if lead is None or not fits or math.prod(whole[len(lead) :]) != math.prod(shape):
            wrong = f"values ({values})"
        elif len(given.batch_shape) < len(lead):
            wrong = f"values ({values}) whose batch is not part of the event"
    if wrong:
        raise ConfigError(
            f"head {name!r}: expected {wrong} for {gymnasium_name(space)}, got {_kind(given)} with "
            f"values {whole}."
        )
    assert lead is not None
    return Fitted(given, space, lead)


class Fitted(Distribution):
    """A torch `Distribution` as one over actions of a space: one event per action, float32 or int64.

    Args:
        given: The torch distribution, with values `[*batch_shape, ...]` that have as many numbers as the
            space's.
        batch_shape: The dimensions that do not belong to the action.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, given: Distribution, space: Space, batch_shape: tuple[int, ...]):
        self.given, self.space = given, space
        self.has_rsample = given.has_rsample
        self._shape = (given.batch_shape + given.event_shape)[len(batch_shape) :]
        self._extra = len(given.batch_shape) - len(batch_shape)
        event_shape = torch.Size(space.value_shape)
        super().__init__(torch.Size(batch_shape), event_shape, validate_args=False)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        return self._as_action(self.given.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        return self._as_action(self.given.rsample(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        lead = value.shape[: value.dim() - len(self.event_shape)]
        value = _off_the_bounds(self.space, value).reshape(*lead, *self._shape)
        return summed(self.given.log_prob(value.float()), self._extra).float()

    def entropy(self) -> Tensor:
        """torch's entropy if it defines one; else an estimate from one sample, with an unbiased gradient."""
        try:
            return summed(self.given.entropy(), self._extra).float()
        except NotImplementedError:
            pass
        if self.has_rsample:
            return -self.log_prob(self.rsample())
        log_p = self.log_prob(self.sample())
        surprise = -log_p.detach()
        # The gradient of the entropy is -E[log p grad log p]; that of -log p alone is 0 on average.
        return surprise + surprise * (log_p - log_p.detach())

    @property
    def mode(self) -> Tensor:
        value = _mode(self.given)
        if value is None or (self.space.discrete and bool(value.isnan().any())):
            raise ConfigError(
                f"{_kind(self.given)} has neither a mode nor a mean, so its most likely action is unknown. "
                "Return logits, or a distribution with a `mode`, or write an `act`."
            )
        return self._as_action(value.round() if self.space.discrete else value)

    @property
    def logits(self) -> Tensor:
        """Logits `[..., n]`, as a network would return them, if the distribution is discrete and has them."""
        given = self.given
        while isinstance(given, torchs.Independent):
            given = given.base_dist
        return given.logits.reshape(*self.batch_shape, self.space.n)  # type: ignore[attr-defined]

    def _as_action(self, value: Tensor) -> Tensor:
        lead = value.shape[: value.dim() - len(self._shape)]
        dtype = torch.int64 if self.space.discrete else torch.float32
        return value.reshape(*lead, *self.event_shape).to(dtype)


def _lead(whole: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The batch shape within `whole`: the dimensions before `shape`, or before as many numbers."""
    at = len(whole) - len(shape)
    if at >= 0 and whole[at:] == shape:
        return whole[:at]
    # MultiBinary((2, 3)) is stored as 6 in a row.
    fits = (i for i in reversed(range(len(whole))) if math.prod(whole[i:]) == math.prod(shape))
    at = next(fits, -1)
    return whole[:at] if at >= 0 else None


def _wrong_kind(space: Space, given: Distribution) -> str:
    """The expected kind of distribution if this one does not fit the space; else empty."""
    try:
        choices = _choices(given)
    except NotImplementedError:  # A user's class without a `support`.
        return ""
    if not space.discrete:
        return "" if choices is None else "a continuous distribution, such as a Normal,"
    expected = {2} if space.binary else {*space.nvec} or {space.n}
    if {choices} == expected:
        return ""
    if space.binary:
        return "Bernoulli"
    if len(expected) > 1:
        return f"logits (B, {space.n})"
    kind = f"Categorical of {expected.pop()} choices"
    one_hot = isinstance(given, torchs.OneHotCategorical)
    return f"{kind}, whose values are numbers of choices and not one-hot," if one_hot else kind


def _choices(given: Distribution) -> int | None:
    """The number of choices in each number of a discrete distribution (0: not counted from 0); else None."""
    support: Any = given.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    if not support.is_discrete:
        return None
    if support is constraints.boolean:
        return 2
    if not isinstance(support, constraints.integer_interval):
        return 0
    return int(torch.as_tensor(support.upper_bound).max()) + 1


def _mode(given: Distribution) -> Tensor | None:
    """torch's mode, else its mean, else the transformed mode of the base distribution; or None."""
    if isinstance(given, torchs.Independent):
        return _mode(given.base_dist)
    found = None
    for attribute in ("mode", "mean"):
        try:
            value = getattr(given, attribute)
        except NotImplementedError:
            continue
        # torch returns NaN where two values are equally likely.
        found = value if found is None else torch.where(found.isnan(), value, found)
    if found is None and isinstance(given, torchs.TransformedDistribution):
        found = _mode(given.base_dist)
        for transform in given.transforms if found is not None else ():
            found = transform(found)
    return found


def _off_the_bounds(space: Space, value: Tensor) -> Tensor:
    """The value moved slightly inside the bounds, at which squashed distributions have infinite density."""
    if space.discrete:
        return value
    low, high, bounded = bounds(space, value.device)
    if not bounded:
        return value
    hair = HAIR * (high - low)
    inside = (value >= low) & (value <= high)
    return torch.where(inside, value.clamp(low + hair, high - hair), value)


def _kind(given: Distribution) -> str:
    name = type(given).__name__
    return f"{name}({_kind(given.base_dist)})" if isinstance(given, torchs.Independent) else name

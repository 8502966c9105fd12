"""Properties of spaces that distributions need: bounds on a device, names for messages."""

from __future__ import annotations

import math
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ...replay import Space

# Cached for as long as the space lives: otherwise every step would make four small copies to a GPU.
_KNOWN: WeakKeyDictionary[Space, dict[torch.device, tuple[Tensor, Tensor, bool]]] = (
    WeakKeyDictionary()
)
_STDDEV: WeakKeyDictionary[Space, dict[torch.device, Tensor]] = WeakKeyDictionary()


def bounds(space: Space, device: torch.device) -> tuple[Tensor, Tensor, bool]:
    """`low` and `high`, float32 `[*shape]`, and whether they are finite everywhere."""
    known = _KNOWN.setdefault(space, {})
    if device not in known:
        with torch.inference_mode(False):  # The cache outlives the caller's mode.
            low, high = _bound(space, space.low, -math.inf), _bound(space, space.high, math.inf)
            bounded = bool(torch.isfinite(high - low).all())
            known[device] = low.to(device), high.to(device), bounded
    return known[device]


def stddev_of(space: Space, device: torch.device) -> Tensor | None:
    """The values' standard deviation, float32 `[*shape]`, 1 for constants; None if it is unknown."""
    if space.stddev is None:
        return None
    known = _STDDEV.setdefault(space, {})
    if device not in known:
        with torch.inference_mode(False):
            known[device] = positive(space.stddev).to(device)
    return known[device]


def positive(stddev: Tensor) -> Tensor:
    """A standard deviation to divide by: 1 for constants."""
    return torch.where(stddev > 0, stddev, 1.0)


def gymnasium_name(space: Space) -> str:
    """The space as gymnasium writes it.

    >>> gymnasium_name(Space((7,), torch.int64, discrete=True, nvec=(3, 4)))
    'MultiDiscrete([3, 4])'
    """
    if space.binary:
        return f"MultiBinary({space.n})"
    if space.nvec:
        return f"MultiDiscrete({list(space.nvec)})"
    return f"Discrete({space.n})" if space.discrete else f"Box{tuple(space.shape)}"


def _bound(space: Space, bound: float | Tensor | None, default: float) -> Tensor:
    value = torch.as_tensor(default if bound is None else bound, dtype=torch.float32)
    return value.expand(space.shape).clone()

"""Boxes of gymnasium: numbers and images, as observations and as actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from ..replay import ConfigError, Space
from .codec import Codec
from .layout import is_channels_last

# Environments declare the bounds of floats only roughly: values may exceed them by this many widths of
# the space. A wrong scale or an overflow goes farther.
_ROOM = 1.0
_ROUNDING = 1e-6  # And by this share of their size: 0.3 as a float32 is more than 0.3.


def box(space: spaces.Box, what: str, stack: int, channels: str | None) -> Codec:
    """The codec of observations: in their own dtype, images with channels first.

    Raises:
        ConfigError: If it is unclear which dimension holds the channels.
    """
    low, high = space.low, space.high
    given = np.dtype(space.dtype or np.float32)
    stored: Callable[[Any], Any] = np.asarray
    if given == np.uint8 and len(space.shape) == 2:
        stored = _one_channel
    elif is_channels_last(space.shape, f"The {what} are", channels):
        stored = _ChannelsFirst(len(space.shape))
    low, high = stored(low), stored(high)
    dtype = _kept_type(given)
    stacked = (low, high)
    if stack > 1:
        if not low.shape:
            raise ConfigError(f"frame_stack={stack} needs {what} with at least one dimension.")
        stacked = (np.concatenate([low] * stack), np.concatenate([high] * stack))
    bounds = [_bound(bound, dtype) for bound in stacked]
    # Checked at every step, so not where it cannot fail: any byte is within the bounds of most images.
    checked = dtype != np.bool_ and (dtype != np.uint8 or low.any() or (high != 255).any())
    return Codec(
        Space(tuple(stacked[0].shape), bounds[0].dtype, low=bounds[0], high=bounds[1]),
        stored,
        np.asarray,
        space.shape,
        low.shape,
        dtype,
        _loosened(low, low, high, -1) if checked else None,
        _loosened(high, low, high, 1) if checked else None,
        plain=dtype.kind == "f" and dtype == given and stored is np.asarray,
    )


def box_action(space: spaces.Box) -> Codec:
    """The codec of numeric actions: float32 from models, the environment's own dtype and bounds for it."""
    low, high, shape, dtype = space.low, space.high, space.shape, space.dtype
    assert dtype is not None
    if dtype.kind != "f":
        return _whole_action(space)
    bounds = [np.array(bound, np.float32) for bound in (low, high)]
    # 0.1 as a float32 is more than 0.1: an environment that checks its bounds would refuse it.
    beyond = bool((bounds[0] < low).any() or (bounds[1] > high).any())

    # Always a copy: environments may change the array they receive, or keep it.
    def native(value: Any) -> np.ndarray:
        action = np.array(value, dtype)
        return np.clip(action, low, high) if beyond else action

    return Codec(_float_space(shape, *bounds), np.asarray, native, shape, shape, np.dtype("f4"))


def _whole_action(space: spaces.Box) -> Codec:
    """The codec of integer actions: a model's float32 is rounded to the nearest integer within the bounds."""
    shape, dtype = space.shape, space.dtype
    low, high = (_within(bound) for bound in (space.low, space.high))

    def native(value: Any) -> np.ndarray:
        return np.array(np.clip(np.rint(np.asarray(value, np.float64)), low, high), dtype)

    # Unbounded integer spaces have the limits of their dtype as bounds, which mean nothing to a model.
    seen = (
        np.where(space.bounded_below, low, -np.inf),
        np.where(space.bounded_above, high, np.inf),
    )
    bounds = [np.array(bound, np.float32) for bound in seen]
    return Codec(_float_space(shape, *bounds), np.asarray, native, shape, shape, np.dtype("f4"))


def flags_action(space: spaces.Box) -> Codec:
    """The codec of boolean actions: n choices between two, `[n]`, as for a MultiBinary."""
    low, high, shape = space.low, space.high, space.shape
    n = int(np.prod(shape))

    def native(value: Any) -> np.ndarray:
        action = np.asarray(value, np.bool_).reshape((*np.shape(value)[:-1], *shape))
        return np.array((action | low) & high)

    def stored(value: Any) -> np.ndarray:
        value = np.asarray(value)
        return value.reshape((*value.shape[: value.ndim - len(shape)], n))

    seen: Space = Space((n,), torch.int64, low=0, high=1, discrete=True, binary=True)
    return Codec(seen, stored, native, shape, (n,), np.dtype(np.int64), 0, 1)


def _float_space(shape: tuple[int, ...], low: np.ndarray, high: np.ndarray) -> Space:
    return Space(shape, torch.float32, low=torch.from_numpy(low), high=torch.from_numpy(high))


def _kept_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that values are stored in: one that torch can compute with."""
    if dtype in (np.uint16, np.uint32, np.uint64):
        return np.dtype(np.int64)
    if dtype.kind == "f" and dtype.itemsize > 8:
        return np.dtype(np.float64)
    return dtype.newbyteorder("=")


def _bound(bound: np.ndarray, dtype: np.dtype[Any]) -> torch.Tensor:
    """A bound in the dtype that values are stored in."""
    if bound.dtype == np.uint64:
        bound = np.minimum(bound, np.uint64(np.iinfo(np.int64).max))
    # A copy, since torch warns of arrays that are read-only, as a space's bounds are.
    return torch.from_numpy(np.array(bound, dtype))


def _within(bound: np.ndarray) -> np.ndarray:
    """A bound of integers as float64, never rounded beyond the limits of its dtype (2**63 - 1 would be)."""
    largest = np.iinfo(bound.dtype).max
    exact = float(largest) if int(float(largest)) <= largest else np.nextafter(float(largest), 0)
    return np.minimum(bound.astype(np.float64), exact)


class _ChannelsFirst:
    """Puts the channels of images `[..., H, W, C]`, one or many, first.

    Args:
        dims: Number of dimensions of one image.
    """

    def __init__(self, dims: int):
        self._axes = (-1, *range(-dims, -1))

    def __call__(self, image: Any) -> np.ndarray:
        image = np.asarray(image)
        return image.transpose(*range(image.ndim - len(self._axes)), *self._axes)


def _one_channel(image: Any) -> np.ndarray:
    return np.asarray(image)[..., None, :, :]


def _loosened(bound: np.ndarray, low: np.ndarray, high: np.ndarray, sign: int) -> np.ndarray:
    """The bound, loosened; infinite bounds become the largest float32, so that infinity is outside them."""
    if bound.dtype.kind != "f":
        return bound
    exact, width = bound.astype(np.float64), high.astype(np.float64) - low.astype(np.float64)
    finite = np.maximum(_ROOM * width, _ROUNDING * np.abs(exact))
    room = np.where(np.isfinite(width), finite, _ROOM * (1 + np.abs(exact)))
    largest = float(np.finfo(np.float16 if bound.dtype == np.float16 else np.float32).max)
    return np.clip(exact + sign * room, -largest, largest).astype(bound.dtype)

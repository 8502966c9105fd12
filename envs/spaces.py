"""gymnasium's spaces as `Space`s, and values on their way between the two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from ..replay import ConfigError, Space
from .layout import is_channels_last

# Bounds of floats are rough in the field: a value may be beyond them by this many widths of the space.
# A mistake of scale or an overflow goes farther.
_ROOM = 1.0


@dataclass(frozen=True)
class Codec:
    """One space: its `Space`, and the way of values to and from the environment's own form.

    Attributes:
        space: As models meet it, a dict of them for a Dict space.
        stored: The environment's value to the arrays that are kept, `[*shape]`; works on many at once
            too, `[N, *shape]`.
        native: An action `[*value_shape]` to what `env.step` takes, in memory of its own; or many.
        given: The shape that the environment gives.
        shape, dtype: Of the stored arrays; with stacking, of a single frame.
        low, high: Bounds of stored values that observations are checked against, or None.
        plain: Whether values are stored as they come, floats in one array.
    """

    space: Any
    stored: Callable[[Any], Any]
    native: Callable[[Any], Any]
    given: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    dtype: Any = None
    low: Any = None
    high: Any = None
    parts: dict[str, Codec] | None = None
    plain: bool = False


def codec(
    space: gymnasium.Space[Any],
    what: str,
    *,
    stack: int = 1,
    action: bool = False,
    channels: str | None = None,
) -> Codec:
    """How values of `space` are kept.

    Args:
        what: What errors call it.
        stack: Frames that models meet at once, joined along the first axis.
        channels: Where images have them, "first" or "last"; None: told from their shape.
        action: Whether they are actions: always float32 where they are numbers, in the
            environment's own layout where they are pictures.

    Raises:
        ConfigError: For a kind of space that is not known, or images of which it cannot be told
            where their channels are.
    """
    if isinstance(space, spaces.Dict):
        if odd := [name for name in space if not isinstance(name, str) or "/" in name]:
            raise ConfigError(f"The {what} have the name {odd[0]!r}; names are words without `/`.")
        parts = {
            name: codec(s, f"{what}[{name!r}]", stack=stack, action=action, channels=channels)
            for name, s in space.items()
        }
        return Codec(
            {name: part.space for name, part in parts.items()},
            lambda value: {name: part.stored(value[name]) for name, part in parts.items()},
            lambda value: {name: part.native(value[name]) for name, part in parts.items()},
            parts=parts,
        )
    if isinstance(space, spaces.Box):
        if (kind := np.dtype(space.dtype or np.float32)).kind not in "fiu":
            raise ConfigError(f"The {what} are a Box of {kind}; numbers are needed.")
        return _box_action(space) if action else _box(space, what, stack, channels)
    if isinstance(space, spaces.Discrete):
        n, start = int(space.n), int(space.start)
        # The model counts from 0, wherever the environment starts.
        return Codec(
            Space((n,), torch.int64, low=0, high=n - 1, discrete=True),
            lambda value: np.asarray(value) - np.int64(start),
            lambda value: value + start if value.ndim else int(value) + start,
            (),
            (),
            np.dtype(np.int64),
            0,
            n - 1,
        )
    if isinstance(space, spaces.MultiDiscrete):
        shape, starts = space.nvec.shape, np.asarray(space.start).reshape(-1)
        nvec = tuple(int(n) for n in space.nvec.reshape(-1))
        return Codec(
            Space((sum(nvec),), torch.int64, low=0, discrete=True, nvec=nvec),
            lambda value: _flat(value, shape) - starts,
            lambda value: (value + starts).reshape(*value.shape[:-1], *shape).astype(space.dtype),
            shape,
            (len(nvec),),
            np.dtype(np.int64),
            0,
            np.array(nvec) - 1,
        )
    if isinstance(space, spaces.MultiBinary):
        shape = space.shape
        n = int(np.prod(shape))
        return Codec(
            Space((n,), torch.int64, low=0, high=1, discrete=True, binary=True),
            lambda value: _flat(value, shape),
            lambda value: value.reshape(*value.shape[:-1], *shape).astype(np.int8),
            shape,
            (n,),
            np.dtype(np.int64),
            0,
            1,
        )
    raise ConfigError(
        f"The {what} are a {type(space).__name__} space. Known are Box, Discrete, MultiDiscrete, "
        "MultiBinary and a Dict of these; gymnasium.wrappers.FlattenObservation turns many others "
        "into a Box."
    )


def zeros(code: Codec, n: int) -> Any:
    """n stored values, `[n, *shape]`, or a dict of them."""
    if code.parts is not None:
        return {name: zeros(part, n) for name, part in code.parts.items()}
    return np.zeros((n, *code.shape), code.dtype)


def _flat(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Values `[..., *shape]` in one dimension, `[..., n]`."""
    value = np.asarray(value)
    lead = value.shape[: value.ndim - len(shape)]
    if value.shape != lead + shape:
        raise ValueError(f"shape {list(value.shape)} instead of {list(shape)}")
    return value.reshape(*lead, -1)


def _box(space: spaces.Box, what: str, stack: int, channels: str | None) -> Codec:
    low, high = space.low, space.high
    dtype = np.dtype(space.dtype or np.float32)
    stored: Callable[[Any], Any] = np.asarray
    if dtype == np.uint8 and len(space.shape) == 2:
        stored = _one_channel
    elif is_channels_last(space.shape, f"The {what} are", channels):
        stored = _ChannelsFirst(len(space.shape))
    low, high = stored(low), stored(high)
    if dtype == np.uint16 or dtype == np.uint32 or dtype == np.uint64:
        dtype = np.dtype(np.int64)  # torch has few operations on these.
    stacked = (low, high)
    if stack > 1:
        if not low.shape:
            raise ConfigError(f"frame_stack={stack} needs {what} with at least one dimension.")
        stacked = (np.concatenate([low] * stack), np.concatenate([high] * stack))
    # A copy: torch warns of arrays that cannot be written to.
    bounds = [torch.from_numpy(np.array(bound, dtype)) for bound in stacked]
    # Whatever a byte holds is within the bounds of most pictures.
    checked = dtype != np.uint8 or low.any() or (high != 255).any()
    return Codec(
        Space(tuple(stacked[0].shape), bounds[0].dtype, low=bounds[0], high=bounds[1]),
        stored,
        np.asarray,
        space.shape,
        low.shape,
        dtype,
        _loosened(low, low, high, -1) if checked else None,
        _loosened(high, low, high, 1) if checked else None,
        plain=dtype.kind == "f" and stored is np.asarray,
    )


def _box_action(space: spaces.Box) -> Codec:
    """Models give float32; the environment gets its own type, within its own bounds."""
    low, high, shape, dtype = space.low, space.high, space.shape, space.dtype
    bounds = [np.array(bound, np.float32) for bound in (low, high)]
    # As a float32, 0.1 is more than 0.1.
    beyond = bool((bounds[0] < low).any() or (bounds[1] > high).any())

    # Always a copy: environments may change what they are given, or hold on to it.
    def native(value: Any) -> np.ndarray:
        if dtype.kind != "f":
            value = np.rint(value)
        action = np.array(value, dtype)
        return np.clip(action, low, high) if beyond else action

    seen: Space = Space(
        shape, torch.float32, low=torch.from_numpy(bounds[0]), high=torch.from_numpy(bounds[1])
    )
    return Codec(seen, np.asarray, native, shape, shape, np.dtype(np.float32))


class _ChannelsFirst:
    """Images `[..., H, W, C]`, one or many, with their channels first, whatever the environment gives.

    Args:
        dims: How many dimensions one has.
    """

    def __init__(self, dims: int):
        self._axes = (-1, *range(-dims, -1))

    def __call__(self, image: Any) -> np.ndarray:
        image = np.asarray(image)
        return image.transpose(*range(image.ndim - len(self._axes)), *self._axes)


def _one_channel(image: Any) -> np.ndarray:
    return np.asarray(image)[..., None, :, :]


def _loosened(bound: np.ndarray, low: np.ndarray, high: np.ndarray, sign: int) -> np.ndarray:
    """The bound with room beyond it; an infinite one becomes the largest number of a float32."""
    if bound.dtype.kind != "f":
        return bound
    exact, width = bound.astype(np.float64), high.astype(np.float64) - low.astype(np.float64)
    room = _ROOM * np.where(np.isfinite(width), width, 1 + np.abs(exact))
    largest = float(np.finfo(np.float16 if bound.dtype == np.float16 else np.float32).max)
    return np.clip(exact + sign * room, -largest, largest).astype(bound.dtype)

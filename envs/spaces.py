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

# Rounding may carry a value over its bound by this share of it.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Codec:
    """One space: its `Space`, and the way of values to and from the environment's own form.

    Attributes:
        space: As models meet it, a dict of them for a Dict space.
        stored: The environment's value to the arrays that are kept, `[*value_shape]`.
        native: Arrays `[*value_shape]` to what `env.step` takes.
        shape, dtype: Of the stored arrays; with stacking, of a single frame.
        low, high: Bounds of stored values that observations are checked against, or None.
    """

    space: Any
    stored: Callable[[Any], Any]
    native: Callable[[Any], Any]
    shape: tuple[int, ...] = ()
    dtype: Any = None
    low: Any = None
    high: Any = None
    parts: dict[str, Codec] | None = None


def codec(space: gymnasium.Space[Any], what: str, *, stack: int = 1) -> Codec:
    """How values of `space` are kept.

    Args:
        what: What errors call it.
        stack: Frames that models meet at once, joined along the first axis.

    Raises:
        ConfigError: For a kind of space that is not known.
    """
    if isinstance(space, spaces.Dict):
        parts = {name: codec(s, f"{what}[{name!r}]", stack=stack) for name, s in space.items()}
        return Codec(
            {name: part.space for name, part in parts.items()},
            lambda value: {name: part.stored(value[name]) for name, part in parts.items()},
            lambda value: {name: part.native(value[name]) for name, part in parts.items()},
            parts=parts,
        )
    if isinstance(space, spaces.Box):
        return _box(space, what, stack)
    if isinstance(space, spaces.Discrete):
        n, start = int(space.n), int(space.start)
        # The model counts from 0, wherever the environment starts.
        return Codec(
            Space((n,), torch.int64, low=0, high=n - 1, discrete=True),
            lambda value: np.int64(value) - start,
            lambda value: int(value) + start,
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
            lambda value: np.asarray(value, np.int64).reshape(-1) - starts,
            lambda value: (np.asarray(value) + starts).reshape(shape).astype(space.dtype),
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
            lambda value: np.asarray(value, np.int64).reshape(-1),
            lambda value: np.asarray(value).reshape(shape).astype(np.int8),
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


def _box(space: spaces.Box, what: str, stack: int) -> Codec:
    low, high, shape = space.low, space.high, space.shape
    dtype = np.dtype(space.dtype or np.float32)
    if dtype.kind not in "fiu":
        raise ConfigError(f"The {what} are a Box of {dtype}; numbers are needed.")
    image = is_image(space)
    if image:  # Channels first, whatever the environment gives.
        low, high = _channels_first(low), _channels_first(high)
    if dtype == np.uint16 or dtype == np.uint32 or dtype == np.uint64:
        dtype = np.dtype(np.int64)  # torch has few operations on these.
    stacked = (low, high)
    if stack > 1:
        if not low.shape:
            raise ConfigError(f"frame_stack={stack} needs {what} with at least one dimension.")
        stacked = (np.concatenate([low] * stack), np.concatenate([high] * stack))
    # A copy: torch warns of arrays that cannot be written to.
    bounds = [torch.from_numpy(np.array(bound, dtype)) for bound in stacked]
    seen: Space = Space(
        tuple(stacked[0].shape),
        torch.from_numpy(np.zeros(0, dtype)).dtype,
        low=bounds[0],
        high=bounds[1],
    )
    checked = dtype != np.uint8
    return Codec(
        seen,
        (lambda value: _channels_first(np.asarray(value))) if image else np.asarray,
        lambda value: np.asarray(value, space.dtype).reshape(shape),
        tuple(low.shape),
        dtype,
        _loosened(low, -1) if checked else None,
        _loosened(high, 1) if checked else None,
    )


def is_image(space: spaces.Box) -> bool:
    """Whether values are pictures with their channels last: `[H, W]` or `[H, W, 1, 3 or 4]` uint8."""
    if space.dtype != np.uint8 or len(space.shape) not in (2, 3):
        return False
    return len(space.shape) == 2 or (space.shape[-1] in (1, 3, 4) and space.shape[0] > 4)


def _channels_first(image: np.ndarray) -> np.ndarray:
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


def _loosened(bound: np.ndarray, sign: int) -> np.ndarray:
    """The bound with room for rounding; an infinite one becomes the largest number there is."""
    if bound.dtype.kind != "f":
        return bound
    largest = np.finfo(bound.dtype).max
    room = _TOLERANCE * (1 + np.abs(np.where(np.isfinite(bound), bound, 0)))
    return np.clip(np.where(np.isfinite(bound), bound + sign * room, bound), -largest, largest)

"""Decides where the channels of images are, for data sets and environments alike."""

from __future__ import annotations

import torch
from torch import Tensor

from ..replay import ConfigError
from .numbers import kept_type

_COLOUR = (3, 4)  # Channels of pictures, without and with transparency.
_USUAL = (1, *_COLOUR)


def channels_first(
    inputs: Tensor, name: str = "the data", channels: str | None = None, *, part: str = ""
) -> Tensor:
    """Inputs `[N, *shape]` in a dtype that is stored, with images (also uint8 `[N, H, W]`) as `[N, C, H, W]`.

    Args:
        name: What errors call the data.
        channels: "first" (`[N, C, H, W]`) or "last" (`[N, H, W, C]`) as the user set it; None: inferred.
        part: Which part of the inputs it is, as `called` names it.

    Raises:
        ConfigError: If it is unclear which dimension holds the channels.
    """
    inputs = inputs.to(kept_type(inputs.dtype))
    if inputs.dtype == torch.uint8 and inputs.dim() == 3:
        return inputs[:, None]
    if is_channels_last(tuple(inputs.shape[1:]), f"The inputs{part} of {name} are", channels):
        return inputs.movedim(-1, 1).contiguous()
    return inputs


def is_channels_last(shape: tuple[int, ...], what: str, channels: str | None = None) -> bool:
    """Whether values of this shape are images with their channels last.

    Images have three dimensions. If two sizes are equal, they are height and width; else the first or
    the last size is the number of channels: 1, 3 or 4, or smaller than both others.

    Args:
        shape: Shape of one input or observation, `(*shape,)` without the batch.
        what: How errors introduce the shape: "The inputs of MNIST are".
        channels: "first" or "last" as the user set it, also for more than three dimensions; None: inferred
            from `(C, H, W)`.

    Raises:
        ConfigError: If it is unclear.

    >>> is_channels_last((32, 32, 12), "They are")
    True
    """
    if channels is not None:
        return channels == "last" and len(shape) >= 3
    last = _told(*shape) if len(shape) == 3 else False
    if len(shape) == 4 and shape[-1] in _COLOUR and min(shape[1:3]) > max(_COLOUR):
        last = None  # Several frames, or a volume: their order is not ours to guess.
    if last is None:
        turned = [shape[-1], *shape[:-1]]
        raise ConfigError(
            f"{what} of shape {list(shape)}, so it is unclear which dimension holds the channels. Set "
            f"channels=last to turn them into {turned}, or channels=first to keep their order."
        )
    return last


def _told(first: int, middle: int, last: int) -> bool | None:
    """Whether the last of three sizes is the number of channels; None: it is unclear."""
    if first == last:
        # With one channel either way, values and their order are the same.
        return False if first == 1 else None
    if middle == last:
        return False
    if first == middle:
        return None if first == 1 else True  # 1 x 1 pixels, or a single row of them?
    # A smaller end that is unusual beside a usual one, as in [2, 64, 3], leaves it open.
    fewest = min(first, last)
    if first in _USUAL or last in _USUAL:
        return fewest == last if fewest in _USUAL and {first, last} != set(_COLOUR) else None
    return fewest == last if fewest < middle else None

"""Checks of the arguments of blocks for images."""

from __future__ import annotations

from collections.abc import Sequence

from ...replay import ConfigError


def image_shape(block: str, in_shape: Sequence[int]) -> tuple[int, int, int]:
    """The channels, height and width in `in_shape`.

    Raises:
        ConfigError: If it is not the shape of an image.
    """
    if len(in_shape) != 3 or min(in_shape) < 1:
        raise ConfigError(
            f"{block} needs images, in_shape=[channels, height, width], got {list(in_shape)}. MLP takes "
            "observations of any shape."
        )
    channels, height, width = in_shape
    return channels, height, width

"""Decoded pictures as tensors of one size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor


def is_image(value: Any) -> bool:
    """Whether a value is a PIL image (PIL is not imported to ask)."""
    return hasattr(value, "getbands")


def converter(sizes: list[tuple[int, int]], image_size: int | None) -> Callable[[Any], Tensor]:
    """A function from a PIL image to `[C, H, W]`, resized to one size.

    Args:
        sizes: `(width, height)` of some of the images, in pixels.
        image_size: The side that they are resized to; None: their own, or the median of several.
    """
    size = (image_size, image_size) if image_size else sizes[0]
    if not image_size and len(set(sizes)) > 1:
        # Images of many sizes need one: the median, as large as networks usually take.
        width, height = (int(np.median([s[d] for s in sizes])) for d in (0, 1))
        size = (min(width, 224), min(height, 224))

    def convert(image: Any) -> Tensor:
        pixels = np.array(image if image.size == size else image.resize(size))
        if pixels.dtype == np.bool_:
            pixels = pixels.astype(np.uint8) * 255
        return torch.from_numpy(pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())[
            (None,) if pixels.ndim == 2 else ...
        ]

    return convert

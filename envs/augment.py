"""Augmentations sampled for each image of a batch, without a loop over images.

`torchvision.transforms.v2` samples once per call, so every image of a batch would be shifted alike.
These two are the most common ones; others can be named too (`aug=ColorJitter`).

Both move pixels without changing them, and what comes in from outside is 0: black, in bytes as in [0, 1].
They can therefore be applied to images as they are stored, before bytes become floats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class RandomCrop:
    """A random window of each image, after zero padding.

    Args:
        size: Window `(height, width)` in pixels, or one number for both; None: the image's own.
        padding: Rows and columns of zeros added on each side before cropping. None: no padding for a
            window smaller than the image, else an eighth of the image's shorter side, as is usual: 4 at
            32x32, at least 1.
    """

    def __init__(self, size: int | tuple[int, int] | None = None, padding: int | None = None):
        self.size = (size, size) if isinstance(size, int) else size
        self.padding = padding

    def __call__(self, images: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, C, height, width]`."""
        size = tuple(images.shape[-2:])
        height, width = self.size or size
        padding = self.padding
        if padding is None:
            padding = max(1, min(size) // 8) if (height, width) == size else 0
        padded = F.pad(images, (padding,) * 4)
        b, c, rows, columns = padded.shape
        if height > rows or width > columns:
            raise ValueError(f"RandomCrop: {height}x{width} does not fit into {rows}x{columns}.")
        top = torch.randint(rows - height + 1, (b, 1), device=images.device)
        left = torch.randint(columns - width + 1, (b, 1), device=images.device)
        if images.numel() == 0:
            return images.new_empty(b, c, height, width)
        # A window's rows lie anywhere among the pixels of all images: each is copied as a whole, which is
        # ten times faster than an index for every pixel.
        first = torch.arange(b * c, device=images.device).view(b, c, 1) * rows + top[:, :, None]
        first = first + torch.arange(height, device=images.device)  # (B, C, height)
        starts = (first * columns + left[:, :, None]).flatten()
        pixels = padded.reshape(-1)
        anywhere = pixels.as_strided((len(pixels) - width + 1, width), (1, 1))
        return anywhere.index_select(0, starts).view(b, c, height, width)


class RandomHorizontalFlip:
    """Mirrors each image left to right with probability `p`, a float in [0, 1]."""

    def __init__(self, p: float = 0.5):
        if not 0 <= p <= 1:
            raise ValueError(f"RandomHorizontalFlip: p={p} is not a probability, 0 to 1.")
        self.p = p

    def __call__(self, images: Tensor) -> Tensor:
        """`[B, C, H, W]` to the same shape and dtype."""
        b, device = len(images), images.device
        flip = torch.rand(b, 1, 1, 1, device=device) < self.p
        # Both versions, and of each image one, copied as a whole: faster than to choose by pixel.
        which = torch.arange(b, device=device) + b * flip.flatten()
        return torch.cat([images, images.flip(-1)]).index_select(0, which)


def first_on_bytes(
    steps: Sequence[Callable[[Tensor], Tensor]],
) -> tuple[Sequence[Callable[[Tensor], Tensor]], Sequence[Callable[[Tensor], Tensor]]]:
    """The first steps, as far as they can be applied to bytes, and those after them."""
    # Of these very classes: a subclass may compute with pixels.
    count = next((i for i, step in enumerate(steps) if type(step) not in _MOVE_PIXELS), len(steps))
    return steps[:count], steps[count:]


_MOVE_PIXELS = (RandomCrop, RandomHorizontalFlip)

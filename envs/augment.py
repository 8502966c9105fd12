"""Augmentations sampled for each image of a batch, without a loop over images.

`torchvision.transforms.v2` samples once per call, so every image of a batch would be shifted alike.
These two are the most common ones; others can be named too (`aug=ColorJitter`).
"""

from __future__ import annotations

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
        b, _, rows, columns = padded.shape
        if height > rows or width > columns:
            raise ValueError(f"RandomCrop: {height}x{width} does not fit into {rows}x{columns}.")
        top = torch.randint(rows - height + 1, (b, 1), device=images.device)
        left = torch.randint(columns - width + 1, (b, 1), device=images.device)
        row = top + torch.arange(height, device=images.device)  # (B, height)
        column = left + torch.arange(width, device=images.device)  # (B, width)
        which = torch.arange(b, device=images.device)[:, None, None]
        # Channels last while indexing: the three index tensors are adjacent, one gather.
        window = padded.permute(0, 2, 3, 1)[which, row[:, :, None], column[:, None, :]]
        # Contiguous, as images without augmentation are: a model may `view` the outputs of its convolutions.
        return window.permute(0, 3, 1, 2).contiguous()


class RandomHorizontalFlip:
    """Mirrors each image left to right with probability `p`, a float in [0, 1]."""

    def __init__(self, p: float = 0.5):
        self.p = p

    def __call__(self, images: Tensor) -> Tensor:
        """`[B, C, H, W]` to the same shape and dtype."""
        flip = torch.rand(len(images), 1, 1, 1, device=images.device) < self.p
        return torch.where(flip, images.flip(-1), images)

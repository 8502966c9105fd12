"""A small U-Net that classifies every pixel of an image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .images import image_shape
from .residual import Residual


class SegmentationNet(nn.Module):
    """Residual blocks at four resolutions, each half the one before, joined by skip connections.

    Source: Ronneberger et al. (2015), arXiv 1505.04597, with the residual blocks of He et al. (2015), arXiv
    1512.03385. Images `[B, *in_shape]` of any height and width to logits `[B, num_classes, H, W]`.

    Args:
        in_shape: `(C, H, W)` of an image; the weights depend on the channels alone.
        num_classes: Number of classes of a pixel.
        channels: Channels at the first resolution; twice, four and eight times as many at the others.

    Raises:
        ConfigError: If `in_shape` is not the shape of an image.
    """

    def __init__(self, in_shape: Sequence[int], num_classes: int, channels: int = 16):
        super().__init__()
        in_channels, _, _ = image_shape("SegmentationNet", in_shape)
        widths = [channels * 2**level for level in range(4)]
        self.multiple = 2 ** (len(widths) - 1)  # Sides are padded to a multiple of this.
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        steps = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(Residual(fine, coarse, stride=2) for fine, coarse in steps)
        self.up = nn.ModuleList(
            Residual(coarse + fine, fine, stride=1) for fine, coarse in reversed(steps)
        )
        self.head = nn.Conv2d(channels, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, num_classes, H, W]`."""
        height, width = images.shape[2:]
        padding = (0, -width % self.multiple, 0, -height % self.multiple)
        x = self.stem(F.pad(images, padding) if any(padding) else images)
        skips = []
        for block in self.down:
            skips.append(x)
            x = block(x)
        for block in self.up:
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0), skips.pop()], 1))
        output: Tensor = self.head(x)
        return output[:, :, :height, :width]

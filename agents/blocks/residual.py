"""A small residual network for images."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .images import image_shape


class ResidualCNN(nn.Sequential):
    """A stem and three residual blocks, of which the last two halve the resolution.

    Follows He et al. (2015, arXiv 1512.03385, section 4.2), without the bottleneck. Images
    `[B, *in_shape]` to `[B, out_features]`.

    Args:
        in_shape: `(C, H, W)` of an image; the weights depend on the channels alone.
        out_features: Width of the output.
        channels: Channels of the second block; the first has half as many, the third twice as many.

    Raises:
        ConfigError: If `in_shape` is not the shape of an image.
    """

    def __init__(self, in_shape: Sequence[int], out_features: int, channels: int = 64):
        in_channels, _, _ = image_shape("ResidualCNN", in_shape)
        first = max(1, channels // 2)
        super().__init__(
            nn.Conv2d(in_channels, first, 3, padding=1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            Residual(first, first, stride=1),
            Residual(first, channels, stride=2),
            Residual(channels, channels * 2, stride=2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels * 2, out_features),
        )


class Residual(nn.Module):
    """`relu(shortcut(x) + conv(relu(conv(x))))`, each convolution followed by BatchNorm."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.body(x))

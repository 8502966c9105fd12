"""A plain convolutional network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .images import image_shape
from .pool import AveragePool

# Largest side of the map that linear layers receive, so that their weights do not grow with the image.
_LARGEST = 8


class CNN(nn.Sequential):
    """Convolutions that each halve the resolution, then linear layers: for images under 32 pixels.

    Follows LeNet-5 (LeCun et al., 1998, "Gradient-based learning applied to document recognition"),
    with ReLU, 3x3 filters and max-pooling. Images `[B, *in_shape]` to `[B, out_features]`.

    Args:
        in_shape: `(C, H, W)` of an image; the feature maps of larger images are averaged to 8x8.
        out_features: Width of the output.
        channels: Output channels of each convolution.
        hidden: Width of the layer before the last, in units; 0: no such layer, after global averaging.
        norm: BatchNorm after each convolution. It halves the steps needed to learn from labels, but makes
            the output for an observation depend on the rest of the batch, which breaks acting.

    Raises:
        ConfigError: If `in_shape` is not the shape of an image.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_features: int,
        channels: Sequence[int] = (32, 64),
        hidden: int = 128,
        norm: bool = False,
    ):
        width, *sides = image_shape("CNN", in_shape)
        layers: list[nn.Module] = []
        for size in channels:
            layers += [
                nn.Conv2d(width, size, 3, padding=1, bias=not norm),
                *([nn.BatchNorm2d(size)] if norm else []),
                nn.ReLU(),
                nn.MaxPool2d(2, ceil_mode=True),  # Keeps at least one pixel.
            ]
            width, sides = size, [-(-side // 2) for side in sides]
        if not hidden:
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
            super().__init__(*layers, nn.Linear(width, out_features))
            return
        if max(sides) > _LARGEST:
            sides = [min(side, _LARGEST) for side in sides]
            layers += [AveragePool(sides)]
        layers += [nn.Flatten(), nn.Linear(width * sides[0] * sides[1], hidden), nn.ReLU()]
        super().__init__(*layers, nn.Linear(hidden, out_features))

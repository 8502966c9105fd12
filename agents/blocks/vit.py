"""A vision transformer for small images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...replay import ConfigError
from .attention import transformer
from .images import image_shape

_TOKENS = 64  # About: 8x8 patches.


class ViT(nn.Module):
    """A transformer over the patches of an image, `[B, *in_shape]` to `[B, out_features]`.

    Dosovitskiy et al. (2020, arXiv 2010.11929), with the sine-cosine positions and the averaged
    tokens of Beyer et al. (2022, arXiv 2205.01580), and patches that overlap, as in Wang et al. (2021,
    arXiv 2106.13797).

    Args:
        in_shape: `(C, H, W)` of an image.
        out_features: Width of the output.
        patch: Distance between patches in pixels, for images of any size; default: at least 2, such that
            there are about 64 patches.
        width: Width of a token, a multiple of 4 and of `heads`.
        depth: Number of layers.
        heads: Attention heads per layer.

    Raises:
        ConfigError: If `in_shape` is not the shape of an image, or `width` is not such a multiple.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_features: int,
        patch: int | None = None,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
    ):
        super().__init__()
        channels, *sides = image_shape("ViT", in_shape)
        if width % 4:
            raise ConfigError(f"ViT: width={width} must be a multiple of 4 (positions).")
        step = patch or max(2, round(math.sqrt(math.prod(sides) / _TOKENS)))
        rows, columns = (-(-side // step) for side in sides)
        # Overlap helps where data is scarce: 96.8 % on digits after 10 epochs, 95.6 % without.
        self.embed = nn.Conv2d(channels, width, 2 * step - 1, step, padding=step - 1)
        self.register_buffer("positions", _positions(rows, columns, width), persistent=False)
        self.transformer = transformer("ViT", width, depth, heads)
        self.head = nn.Linear(width, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        tokens = self.embed(obs).flatten(2).mT  # [B, patches, width]
        return self.head(self.transformer(tokens + self.positions).mean(1))


def _positions(rows: int, columns: int, width: int) -> Tensor:
    """Sines and cosines of each patch's row and column, `[rows * columns, width]`."""
    # Frequencies down to 1 / 10, not the usual 1 / 10,000: 95.6 % on digits instead of 92.9 %.
    frequency = 10 ** -torch.linspace(0, 1, width // 4)
    angles = [torch.arange(n).float()[:, None] * frequency for n in (rows, columns)]
    row, column = (torch.cat([angle.sin(), angle.cos()], 1) for angle in angles)
    table = [row[:, None].expand(-1, columns, -1), column.expand(rows, -1, -1)]
    return torch.cat(table, 2).flatten(0, 1)

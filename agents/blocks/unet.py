"""A small U-Net: maps images to images of the same size, conditioned on a vector."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_GROUPS = 8  # Of channels that are normalised together.


class UNet(nn.Module):
    """Residual blocks at two resolutions, the second half the first, joined by skip connections.

    Source: Ronneberger et al. (2015), arXiv 1505.04597; with the residual blocks, their scales and
    shifts from the condition, and the attention of Dhariwal & Nichol (2021), arXiv 2105.05233.

    Args:
        in_channels, out_channels: C of images `[B, C, H, W]` of any height and width.
        condition: Width of the conditioning vectors, float32 `[B, condition]`.
        channels: Channels at the first resolution, a multiple of 8; twice as many at the second.
        patch: Side, in pixels, of the patches that become one pixel at the first resolution: 2 takes a
            quarter of the time of 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        condition: int,
        channels: int = 64,
        patch: int = 1,
    ):
        super().__init__()
        c = channels
        self.multiple = 2 * patch  # Sides are padded to a multiple of this.
        self.stem = nn.Conv2d(in_channels * patch**2, c, 3, padding=1)
        self.down = ResidualBlock(c, c, condition)
        self.coarser = nn.Conv2d(c, 2 * c, 3, stride=2, padding=1)
        self.middle_in = ResidualBlock(2 * c, 2 * c, condition)
        self.attention = Attention(2 * c)
        self.middle_out = ResidualBlock(2 * c, 2 * c, condition)
        self.finer = nn.Conv2d(2 * c, c, 3, padding=1)
        self.up = ResidualBlock(2 * c, c, condition)
        self.head = nn.Sequential(
            nn.GroupNorm(_GROUPS, c),
            nn.SiLU(),
            zeroed(nn.Conv2d(c, out_channels * patch**2, 3, padding=1)),
        )
        self.patch = patch

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """`[B, in_channels, H, W]` and `[B, condition]` to `[B, out_channels, H, W]`."""
        height, width = images.shape[2:]
        images = F.pad(images, (0, -width % self.multiple, 0, -height % self.multiple))
        x = self.stem(F.pixel_unshuffle(images, self.patch))
        skip = self.down(x, condition)
        x = self.middle_in(self.coarser(skip), condition)
        x = self.middle_out(self.attention(x), condition)
        x = self.finer(F.interpolate(x, scale_factor=2.0))
        x = self.up(torch.cat([x, skip], 1), condition)
        return F.pixel_shuffle(self.head(x), self.patch)[:, :, :height, :width]


class ResidualBlock(nn.Module):
    """`x + conv(silu(scale * norm(conv(silu(norm(x)))) + shift))`, both from the condition."""

    def __init__(self, in_channels: int, out_channels: int, condition: int):
        super().__init__()
        self.norm_in = nn.GroupNorm(_GROUPS, in_channels)
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(condition, 2 * out_channels)
        self.norm_out = nn.GroupNorm(_GROUPS, out_channels)
        self.conv_out = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        y = self.conv_in(F.silu(self.norm_in(x)))
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, 1)
        y = self.conv_out(F.silu(self.norm_out(y) * (1 + scale) + shift))
        return self.shortcut(x) + y


class Attention(nn.Module):
    """Self-attention over all pixels: `x + attend(norm(x))`."""

    def __init__(self, channels: int, heads: int = 4):
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.attend = nn.MultiheadAttention(channels, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x).flatten(2).transpose(1, 2)  # [B, H * W, C]
        y, _ = self.attend(y, y, y, need_weights=False)
        return x + y.transpose(1, 2).unflatten(2, x.shape[2:])


def sinusoids(t: Tensor, width: int) -> Tensor:
    """Times `[B]` in [0, 1] as sines and cosines `[B, width]`, with frequencies from 1 to 1000.

    Source: Vaswani et al. (2017), arXiv 1706.03762, section 3.5.
    """
    frequencies = torch.logspace(0, math.log10(1000), width // 2, device=t.device)
    angles = t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with zeroed weights, so that a residual block starts as the identity."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer

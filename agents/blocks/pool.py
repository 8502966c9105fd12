"""Deterministic pooling to a fixed size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class AveragePool(nn.Module):
    """`nn.AdaptiveAvgPool2d` with a deterministic gradient.

    The mean over each of `size` windows, which cover the image and overlap where it does not divide
    evenly: window i of n over a side s spans floor(i s / n) to ceil((i + 1) s / n). It is computed as two
    matrix products, because torch's own gradient is not deterministic on a GPU.

    Args:
        size: Height and width of the output, `[B, C, size, size]`.

    >>> AveragePool((1, 2))(torch.arange(6.0).view(1, 1, 2, 3))
    tensor([[[[2., 3.]]]])
    """

    def __init__(self, size: Sequence[int]):
        super().__init__()
        self.size = tuple(size)

    def forward(self, images: Tensor) -> Tensor:
        """`[..., H, W]` to `[..., *size]`."""
        rows, columns = (
            _means(n, side, images) for n, side in zip(self.size, images.shape[-2:], strict=True)
        )
        return rows @ images @ columns.T

    def extra_repr(self) -> str:
        return f"size={self.size}"


def _means(n: int, side: int, like: Tensor) -> Tensor:
    """The matrix `[n, side]` that averages over each of n windows."""
    window = torch.arange(n, device=like.device)[:, None]
    place = torch.arange(side, device=like.device)
    begin = window * side // n
    end = -(-(window + 1) * side // n)
    inside = (place >= begin) & (place < end)
    return inside.to(like.dtype) / (end - begin)

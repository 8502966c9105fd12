"""Mean absolute error."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def mae(output: Tensor, label: Tensor) -> float:
    """Mean absolute error of values float `[N, ...]`, in the targets' units.

    >>> import torch
    >>> mae(torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [1.0]]))
    1.0
    """
    # In float64: far from zero, float32 differences lose most of their digits.
    return float((output.double() - label.double()).abs().mean())

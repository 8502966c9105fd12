"""Coefficient of determination."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def r2(output: Tensor, label: Tensor) -> float:
    """Coefficient of determination of values float `[N, ...]`, over all columns together.

        R2 = 1 - sum (output - label)^2 / sum (label - mean label)^2

    Returns:
        1 is exact, 0 no better than the mean of the labels. NaN if all labels are equal.

    >>> import torch
    >>> r2(torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [3.0]]))
    1.0
    """
    # In float64, since the two sums may agree in most of their digits.
    residual = (output.double() - label.double()).square().sum()
    total = (label.double() - label.double().mean(0)).square().sum()
    return float(1 - residual / total) if total > 0 else math.nan

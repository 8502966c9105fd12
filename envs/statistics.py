"""Means and standard deviations of data, in one pass and in float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..replay import LazyColumn

_CHUNK = 4096  # Rows per step of the streaming statistics.
_ROUNDING = 2.0**-24  # A float32 is rounded by up to this share of its size.
_SMALL, _LARGE = 2.0**-100, 2.0**100  # Beyond, products of float32 numbers may vanish or overflow.


def statistics(
    columns: list[Tensor | LazyColumn], base: Tensor | None = None
) -> tuple[Tensor, Tensor, float, float]:
    """Mean and standard deviation (per channel for images, else per feature), lowest and highest value.

    One pass in chunks; means and squared deviations are merged as in Chan, Golub & LeVeque (1983),
    "Algorithms for computing the sample variance", eq. 1.5.

    Args:
        base: One value of each feature (`shape`, or `(C, 1, 1)` for images), subtracted from all values
            in their own dtype first. The mean is relative to it.

    Returns:
        float64 each.
    """
    shape = columns[0].shape[1:]
    over = (0, 2, 3) if len(shape) == 3 else (0,)
    # Not a sum of squares minus the squared mean, which cancels where the mean is large.
    count, mean, squares = 0.0, torch.tensor(0.0), torch.tensor(0.0)
    low, high = torch.tensor(float("inf")), torch.tensor(float("-inf"))
    for chunk in chunks(columns):
        if base is not None:
            chunk = chunk - base
        low = torch.minimum(low, chunk.amin(over).to(torch.float64))
        high = torch.maximum(high, chunk.amax(over).to(torch.float64))
        chunk = chunk.to(torch.float64)
        n = float(np.prod([chunk.shape[d] for d in over]))
        chunk_variance, chunk_mean = torch.var_mean(chunk, over, correction=0)
        delta = chunk_mean - mean
        squares = squares + chunk_variance * n + delta**2 * (count * n / (count + n))
        mean = mean + delta * (n / (count + n))
        count += n
    # Exactly 0 for a constant feature, which the standardisation relies on not to divide by noise.
    stddev = (squares / count).sqrt()
    begin = 0.0 if base is None else base.to(torch.float64).view(low.shape)
    return mean, stddev, float((low + begin).min()), float((high + begin).max())


def chunks(columns: list[Tensor | LazyColumn]) -> Iterator[Tensor]:
    """Yields the rows of the columns in chunks `[n, *shape]`."""
    for column in columns:
        for start in range(0, len(column), _CHUNK):
            rows = slice(start, start + _CHUNK)
            yield column[rows] if isinstance(column, Tensor) else _rows(column, rows)


def is_far(mean: Tensor, stddev: Tensor, tolerated: float) -> bool:
    """Whether float32 rounds values around `mean` by more than this share of their standard deviation."""
    far = mean.abs() * _ROUNDING > tolerated * stddev
    odd = (stddev < _SMALL) | (stddev > _LARGE) | (mean.abs() > _LARGE)
    return bool(((stddev > 0) & (far | odd)).any())


def _rows(column: LazyColumn, rows: slice) -> Tensor:
    return column.take(torch.arange(*rows.indices(len(column))))

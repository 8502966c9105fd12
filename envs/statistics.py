"""Means and deviations of data, in one pass."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..replay import LazyColumn

_CHUNK = 4096  # Rows per step of the streaming statistics.


def statistics(columns: list[Tensor | LazyColumn]) -> tuple[Tensor, Tensor, float, float]:
    """Mean, deviation (per channel for images, else per feature), lowest and highest value.

    One pass in chunks; means and squared deviations are merged as in Chan, Golub & LeVeque (1983),
    "Algorithms for computing the sample variance", eq. 1.5.
    """
    shape = columns[0].shape[1:]
    over = (0, 2, 3) if len(shape) == 3 else (0,)
    count, mean, squares = 0.0, torch.tensor(0.0), torch.tensor(0.0)
    low, high = float("inf"), float("-inf")
    for column in columns:
        for start in range(0, len(column), _CHUNK):
            rows = slice(start, start + _CHUNK)
            chunk = column[rows] if isinstance(column, Tensor) else _rows(column, rows)
            low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
            chunk = chunk.to(torch.float64)
            n = float(np.prod([chunk.shape[d] for d in over]))
            chunk_variance, chunk_mean = torch.var_mean(chunk, over, correction=0)
            delta = chunk_mean - mean
            squares = squares + chunk_variance * n + delta**2 * (count * n / (count + n))
            mean = mean + delta * (n / (count + n))
            count += n
    return mean.float(), (squares / count).sqrt().float(), low, high


def _rows(column: LazyColumn, rows: slice) -> Tensor:
    return column.take(torch.arange(*rows.indices(len(column))))

"""Means and standard deviations of data, in one pass and in float64."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..replay import LazyColumn
from ..replay.mapped import Mapped, Rows

Column: TypeAlias = Tensor | LazyColumn | Mapped

_CHUNK, _CHUNK_BYTES = 4096, 2**26  # Rows per step of the streaming statistics, and their bytes.
_BYTES = 2**18  # Bytes per step of the exact ones: as floats they fit into a processor's cache.
# float32 adds up to this many squared bytes exactly: 256 * 255^2 < 2^24.
_EXACT = 256
_ROUNDING = 2.0**-24  # A float32 is rounded by up to this share of its size.
_SMALL, _LARGE = 2.0**-100, 2.0**100  # Beyond, products of float32 numbers may vanish or overflow.


def statistics(
    columns: list[Column], base: Tensor | None = None
) -> tuple[Tensor, Tensor, float, float]:
    """Mean and standard deviation (per channel for images, else per feature), lowest and highest value.

    One pass in chunks. Bytes are summed in whole numbers, and the results are the exact ones, rounded once;
    otherwise means and squared deviations are merged as in Chan, Golub & LeVeque (1983), "Algorithms for
    computing the sample variance", eq. 1.5.

    Args:
        base: One value of each feature (`shape`, or `(C, 1, 1)` for images), subtracted from all values
            in their own dtype first. The mean is relative to it.

    Returns:
        float64 each.
    """
    shape = tuple(columns[0].shape[1:])
    if base is None and all(column.dtype == torch.uint8 for column in columns):
        return _of_bytes(columns, shape)
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


def _of_bytes(columns: list[Column], shape: tuple[int, ...]) -> tuple[Tensor, Tensor, float, float]:
    """`statistics` of uint8."""
    sums = functools.reduce(Sums.__add__, map(sums_of, columns))
    n, both = sums.n, list(zip(sums.values, sums.squares, strict=True))
    # Python divides integers of any size, and rounds once.
    mean = torch.tensor([one / n for one, _ in both], dtype=torch.float64)
    variance = torch.tensor([(n * two - one**2) / n**2 for one, two in both], dtype=torch.float64)
    across = shape[:1] if len(shape) == 3 else shape
    return mean.view(across), variance.sqrt().view(across), float(sums.low), float(sums.high)


@dataclass(frozen=True)
class Sums:
    """Exact sums of bytes, of each channel of images or else of each feature.

    Attributes:
        n: Number of bytes that were added up in each.
        values, squares: Sums of the bytes and of their squares.
        low, high: The lowest and the highest byte of all.
    """

    n: int
    values: list[int]
    squares: list[int]
    low: int
    high: int

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.n + other.n,
            [one + two for one, two in zip(self.values, other.values, strict=True)],
            [one + two for one, two in zip(self.squares, other.squares, strict=True)],
            min(self.low, other.low),
            max(self.high, other.high),
        )

    def state(self) -> list[Any]:
        """Plain data, from which `Sums(*state)` restores them."""
        return [self.n, self.values, self.squares, self.low, self.high]


# Sums that were added up while a column was made, by the identity of the column.
_KNOWN: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
_OF_SOURCES: WeakKeyDictionary[Rows | LazyColumn, Sums] = WeakKeyDictionary()


def remember(column: Tensor | LazyColumn | Rows, sums: Sums) -> None:
    """Let `sums_of` return these sums for this very column, or this source, which does not change."""
    if isinstance(column, Tensor):
        _KNOWN[column] = sums
    else:
        _OF_SOURCES[column] = sums


def sums_of(column: Column) -> Sums:
    """The sums of a uint8 column `[N, *shape]`, in one pass."""
    if isinstance(column, Tensor) and (known := _KNOWN.get(column)) is not None:
        return known
    source = column.whole if isinstance(column, Mapped) else column
    if source is not None and not isinstance(source, Tensor) and (known := _OF_SOURCES.get(source)):
        return known
    shape = tuple(column.shape[1:])
    channels = shape[0] if len(shape) == 3 else math.prod(shape)
    pixels = math.prod(shape) // channels  # 1 if the statistics are per feature.
    rows = max(1, _BYTES // math.prod(shape))
    rows -= rows % _EXACT if rows > _EXACT else 0
    values = torch.zeros(channels, dtype=torch.float64)  # Whole numbers, exact up to 2^53.
    squares, low, high = values.clone(), 255, 0
    # One buffer for all chunks: new memory for each would take longer than the sums.
    buffer = torch.empty(min(rows, len(column)), channels, pixels)
    for chunk in chunks([column], rows):
        lowest, highest = chunk.aminmax()
        low, high = min(low, int(lowest)), max(high, int(highest))
        floats = buffer[: len(chunk)].copy_(chunk.reshape(-1, channels, pixels))
        values += _exact_sums(floats)
        squares += _exact_sums(floats.square_())
    one, two = ([int(number) for number in sums.tolist()] for sums in (values, squares))
    return Sums(len(column) * pixels, one, two, low, high)


def _exact_sums(values: Tensor) -> Tensor:
    """Sums of whole numbers up to 255^2 over rows and pixels: `[n, C, P]` float32 to `[C]` float64."""
    n, channels, pixels = values.shape
    if pixels > 4 * _EXACT:
        flat, whole = values.view(-1, pixels), pixels // _EXACT * _EXACT
        sums = flat[:, :whole].unflatten(1, (-1, _EXACT)).sum(2).to(torch.float64).sum(1)
        return (sums + flat[:, whole:].sum(1)).view(n, channels).sum(0)
    flat, whole = values.flatten(1), n // _EXACT * _EXACT
    sums = flat[:whole].view(n // _EXACT, _EXACT, -1) if whole else flat[None, :0]
    return (sums.sum(1).to(torch.float64).sum(0) + flat[whole:].sum(0)).view(channels, -1).sum(1)


def chunks(columns: list[Column], size: int = _CHUNK) -> Iterator[Tensor]:
    """Yields the rows of the columns in chunks `[n, *shape]` of up to `size` rows, and up to 64 MB."""
    for column in columns:
        row_bytes = math.prod(column.shape[1:]) * column.dtype.itemsize
        size = max(1, min(size, _CHUNK_BYTES // max(1, row_bytes)))
        for start in range(0, len(column), size):
            rows = slice(start, start + size)
            yield _rows(column, rows) if isinstance(column, LazyColumn) else column[rows]


def is_far(mean: Tensor, stddev: Tensor, tolerated: float) -> bool:
    """Whether float32 rounds values around `mean` by more than this share of their standard deviation."""
    far = mean.abs() * _ROUNDING > tolerated * stddev
    odd = (stddev < _SMALL) | (stddev > _LARGE) | (mean.abs() > _LARGE)
    return bool(((stddev > 0) & (far | odd)).any())


def _rows(column: LazyColumn, rows: slice) -> Tensor:
    return column.take(torch.arange(*rows.indices(len(column))))

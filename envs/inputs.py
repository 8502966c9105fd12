"""What inputs of each dtype become: ids stay integers, and numbers keep the digits that matter.

source                      kept as                                     models receive
uint8                       uint8                                       float32, standardised
float16, float32, float64   float32; standardised already, if far off   float32, standardised
bool                        bool                                        float32 0 and 1
other integers              int64                                       int64, as they are
other integers, as numbers  as floats are                               float32, standardised
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..replay import LazyColumn, Ragged, Scale, Space, Spec
from ..replay.mapped import Mapped
from ..replay.tree import Path, at_path, map_paths, zip_trees
from .arrays import Arrays
from .statistics import chunks, is_far, statistics

# Larger integers are not ids: an embedding of 16 million rows would be larger than any in use, and
# float32 holds every integer up to here.
LARGEST_ID = 2**24
# Shares of a standard deviation that a value may be rounded by: when it is stored, as input of the
# standardisation; when a mean is stored; and when models receive it.
_STORED, _MEAN, _RECEIVED = 1e-6, 1e-3, 1e-3

Column = Tensor | LazyColumn | Mapped


def input_spaces(
    train: Sequence[Any],
    held_out: Sequence[Any],
    *,
    name: str,
    high: float | None = None,
    standardize: bool | None = None,
    altered: bool = False,
) -> Any:
    """The space of inputs, or a dict of the spaces of their parts; arguments as for `input_space`."""

    def space(path: Path, _: object) -> Space:
        of_train: list[Any] = [at_path(columns, path) for columns in train]
        rest: list[Any] = [at_path(columns, path) for columns in held_out]
        of_column = _steps_space if isinstance(of_train[0], Ragged) else input_space
        return of_column(
            of_train,
            rest,
            name=f"{name}{called(path)}",
            high=high,
            standardize=standardize,
            altered=altered,
        )

    return map_paths(space, train[0])


def called(path: Path) -> str:
    """How errors name a part of a dict of inputs, after the word before it; empty for a single input.

    >>> called(("camera", "left"))
    ' `camera.left`'
    """
    return f" `{'.'.join(path)}`" if path else ""


def input_space(
    train: list[Column],
    held_out: list[Column],
    *,
    name: str,
    high: float | None = None,
    standardize: bool | None = None,
    altered: bool = False,
) -> Space:
    """The space of inputs, `scale` and `ids` included.

    Args:
        train, held_out: Inputs `[N, *shape]` as read; the statistics are computed from `train` only.
        name: What warnings call the data.
        high: The largest value that bytes can take; None: 255.
        standardize: The user's setting (bool); None: it was not given.
        altered: Whether stored rows are altered for each task.
    """
    dtype, shape = train[0].dtype, tuple(train[0].shape[1:])
    if is_whole(dtype):
        low, top = extremes([*train, *held_out])
        as_ids = not standardize if standardize is not None else max(-low, top) <= LARGEST_ID
        if as_ids:
            mean, stddev, *_ = statistics(train)
            return Space(shape, dtype, low, top, mean.float(), stddev.float(), ids=top + 1)
    if dtype == torch.uint8:
        mean, stddev, *_ = statistics(train)
        return Space(shape, dtype, 0.0, float(high or 255), mean.float(), stddev.float())
    if dtype == torch.bool and not standardize:
        mean, stddev, *_ = statistics(train)
        return Space(shape, dtype, 0.0, 1.0, mean.float(), stddev.float())
    return _numbers(train, name, standardize=standardize, altered=altered)


def _steps_space(train: Sequence[Ragged], held_out: Sequence[Ragged], **options: Any) -> Space:
    """The space of sequences of different lengths: that of their real steps, as often as the longest has."""
    steps: list[Column] = [column.values for column in train]
    space = input_space(steps, [column.values for column in held_out], **options)
    longest = max(column.longest for column in (*train, *held_out))
    return replace(space, shape=(longest, *space.shape), ragged=True)


def is_whole(dtype: torch.dtype) -> bool:
    """Whether a dtype holds integers that may be ids: bytes are pictures instead."""
    return not dtype.is_floating_point and dtype not in (torch.uint8, torch.bool)


def stored(arrays: Arrays, spec: Spec) -> Arrays:
    """A part of the data as it is stored: inputs as in `spec.obs`, values in the dtype of `spec.action`."""
    targets = arrays.targets if arrays.discrete else arrays.targets.to(spec.action.dtype)
    # In the order of the spec, whatever that of a later data set's dict.
    return replace(arrays, inputs=zip_trees(_stored, spec.obs, arrays.inputs), targets=targets)


def _stored(space: Space, column: Column) -> Column:
    scale = space.scale
    if scale is None and column.dtype == space.dtype:
        return column
    if isinstance(column, Tensor):
        return column.to(space.dtype) if scale is None else scale.column(column)
    convert = (lambda x: x.to(space.dtype)) if scale is None else scale.stored
    return column.converted(convert, space.dtype)


def _numbers(train: list[Column], name: str, *, standardize: bool | None, altered: bool) -> Space:
    """The space of inputs that models receive as float32."""
    dtype, shape = train[0].dtype, tuple(train[0].shape[1:])
    # Integers are counted from one of them, since float64 cannot hold nanoseconds since 1970.
    base = _first(train[0]) if is_whole(dtype) else None
    offset, stddev, low, top = statistics(train, base)
    mean = offset if base is None else offset + base.to(torch.float64).view(offset.shape)
    if low >= 0 and top <= 1:
        # Already scaled, as torchvision's ToTensor does; the training data may just miss the ends.
        low, top = 0.0, 1.0
    # Rows that are altered later are stored unscaled, since a permutation mixes features.
    scale = None
    if not altered and is_far(mean, stddev, _STORED):
        unit = torch.where(stddev > 0, stddev, 1.0)
        parts = [_per_channel(x, shape) for x in (mean, offset, unit)]
        if base is None:
            scale = Scale(parts[0], torch.zeros_like(parts[0]), parts[2])
        else:
            scale = Scale(base, parts[1], parts[2])
    if standardize is False or altered:
        # Without standardisation, or altered before it: float32 alone must tell values apart.
        width = top - low if standardize is False else 1.0
        begin = low if standardize is False and scale is not None else 0.0
        if is_far((mean - begin) / width, stddev / width, _RECEIVED):
            why = "standardize=false" if standardize is False else "they are altered for each task"
            warnings.warn(
                f"Inputs of {name} lie so far from zero, or so close together, that float32 "
                f"cannot tell them apart without standardisation ({why}). Subtract their mean "
                "first.",
                stacklevel=2,
            )
    wide = torch.float64 if is_far(mean, stddev, _MEAN) else torch.float32
    return Space(shape, torch.float32, low, top, mean.to(wide), stddev.to(wide), scale=scale)


def _first(column: Column) -> Tensor:
    """One value of every feature, or channel: `shape`, or `(C, 1, 1)` for images."""
    row = column[0] if isinstance(column, Tensor) else column.take(torch.tensor([0]))[0]
    return row[:, :1, :1].clone() if row.dim() == 3 else row.clone()


def _per_channel(statistic: Tensor, shape: tuple[int, ...]) -> Tensor:
    return statistic[:, None, None] if len(shape) == 3 else statistic


def extremes(columns: list[Column]) -> tuple[int, int]:
    """The smallest and the largest of integers."""
    ends = [(int(chunk.min()), int(chunk.max())) for chunk in chunks(columns)]
    return min(low for low, _ in ends), max(high for _, high in ends)

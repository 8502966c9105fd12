"""The spec of data: what a model receives, and what it has to return."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..replay import DataError, Space, Spec
from ..replay.tree import walk
from .arrays import Arrays
from .headings import check_order
from .inputs import called, input_spaces
from .labels import IN_WORDS
from .lengths import row_shape
from .pixel_classes import pixel_space
from .statistics import is_far, statistics
from .table_columns import with_sizes

# Share of a standard deviation that targets may be rounded by; beyond it they are kept as float64.
_ROUNDED = 1e-2


def describe(
    train: list[Arrays],
    test: list[Arrays | None],
    *,
    num_tasks: int,
    standardize: bool | None = None,
    altered: bool = False,
) -> Spec:
    """The spec of data: shapes, classes, and statistics of the training inputs.

    Args:
        train: The data sets to learn from, one or several, with inputs `[N, *shape]`.
        test: The held-out data of each, or None.
        num_tasks: Number of tasks, as in `Spec`.
        standardize: The user's setting (bool); None: it was not given.
        altered: Whether stored rows are altered for each task.

    Raises:
        DataError: If the parts do not fit together, or held-out labels are out of range.
    """
    first, held_out = train[0], [arrays for arrays in test if arrays is not None]
    for arrays in (*train[1:], *held_out):
        check_alike(first, arrays)
    for one, other in zip(train, test, strict=True):
        if other is not None:
            check_order(one.headings, other.headings, one.name, "its held-out part", same=True)
    if first.kind == "classes":
        action = _classes(train, held_out)
    elif first.kind == "labels":
        action = _several(train)
    elif first.kind == "pixels":
        action = pixel_space(train)
    else:
        action = _values([arrays.targets for arrays in train])
    obs = input_spaces(
        [arrays.inputs for arrays in train],
        [arrays.inputs for arrays in held_out],
        name=first.name,
        high=first.high,
        standardize=standardize,
        altered=altered,
    )
    if first.columns is not None:
        obs = with_sizes(obs, first.columns)
    return Spec(obs, action, num_tasks)


def check_alike(first: Arrays, arrays: Arrays) -> None:
    """Raise DataError for data whose inputs or targets differ in form from those of the first."""
    for one, other in (
        (first.headings, arrays.headings),
        (first.target_headings, arrays.target_headings),
    ):
        check_order(one, other, first.name, arrays.name)
    columns, others = dict(walk(first.inputs)), dict(walk(arrays.inputs))
    if columns.keys() != others.keys():
        raise DataError(
            f"{first.name} has {in_parts(first.inputs)}, {arrays.name} {in_parts(arrays.inputs)}. All data "
            "of a run must have the same inputs."
        )
    for path, column in columns.items():
        _check_column(column, others[path], first.name, arrays.name, called(path))
    if arrays.kind != first.kind:
        raise DataError(
            f"{first.name} has {IN_WORDS[first.kind]} as targets, {arrays.name} has {IN_WORDS[arrays.kind]}."
        )
    if not first.discrete and arrays.targets.shape[1:] != first.targets.shape[1:]:
        raise DataError(
            f"{first.name} has targets of shape {list(first.targets.shape[1:])}, {arrays.name} "
            f"of {list(arrays.targets.shape[1:])}."
        )


def in_parts(inputs: object) -> str:
    """What inputs consist of: `inputs a, b.c` for a dict, `one input` otherwise."""
    if len(paths := [path for path, _ in walk(inputs)]) == 1 and not paths[0]:
        return "one input"
    return f"inputs {', '.join('.'.join(path) for path in paths)}"


def _check_column(column: Any, other: Any, first: str, name: str, part: str) -> None:
    if row_shape(other) != row_shape(column):
        raise DataError(
            f"{first} has inputs{part} of shape {row_shape(column)}, {name} of "
            f"{row_shape(other)}. All data of a run must have the same shape "
            "(folders of images: set image_size)."
        )
    if _kind(other.dtype) != _kind(column.dtype):
        raise DataError(
            f"{first} has inputs{part} of {_word(column.dtype)}, {name} of "
            f"{_word(other.dtype)}: no one standardisation fits both."
        )


def _classes(train: list[Arrays], held_out: list[Arrays]) -> Space:
    """The space of classes: those declared, or as many as occur."""
    declared = max(arrays.num_classes or 0 for arrays in train)
    n = max(declared, *(int(arrays.targets.max()) + 1 for arrays in train))
    for arrays in held_out:
        if (highest := int(arrays.targets.max())) >= n:
            raise DataError(
                f"Labels out of range: {arrays.name} holds label {highest}, but the training data has "
                f"classes 0 to {n - 1}."
            )
    # Where each data set has its own outputs, the last one carries the names of all of them.
    names = train[-1].names
    if names is not None and len(names) != n:
        names = None
    return Space((n,), torch.int64, low=0, high=n - 1, discrete=True, names=names)


def _several(train: list[Arrays]) -> Space:
    """The space of several labels per row, with names that all parts agree on."""
    names = {arrays.names: arrays.name for arrays in train}
    if len(names) > 1 and None not in names:
        one, other = list(names.values())[:2]
        raise DataError(
            f"{one} and {other} share their outputs, but name their labels differently. Give the same "
            "labels, in the same order."
        )
    found = next(iter(names)) if len(names) == 1 else None
    shape = tuple(train[0].targets.shape[1:])
    return Space(shape, torch.bool, 0, 1, discrete=True, binary=True, names=found)


def _values(columns: list[Tensor]) -> Space:
    """The space of values to be predicted: float64 if float32 cannot tell them apart."""
    # Flattened: targets with three dimensions are not images, and have no channels.
    mean, stddev, low, high = statistics([column.flatten(1) for column in columns])
    shape = tuple(columns[0].shape[1:])
    mean, stddev = mean.view(shape), stddev.view(shape)
    dtype = torch.float64 if is_far(mean, stddev, _ROUNDED) else torch.float32
    return Space(shape, dtype, low, high, mean.to(dtype), stddev.to(dtype))


def _kind(dtype: torch.dtype) -> torch.dtype:
    """The dtype, with all floats as one, since one standardisation fits them."""
    return torch.float64 if dtype.is_floating_point else dtype


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

"""Matches data that comes after training with the data that a run learnt from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..replay import DataError, Ragged, Space, Spec
from ..replay.spec import is_ragged
from ..replay.storage import Column
from ..replay.tree import Path, at_path, map_paths, walk
from .arrays import Arrays
from .headings import check_order
from .inputs import called, stored
from .labels import IN_WORDS
from .numbering import in_words, of_other_kind
from .pixel_classes import numbered_as
from .reading import Reading


def matched(arrays: Arrays, reading: Reading, spec: Spec) -> Arrays:
    """Rows as a run's tables hold them, with the numbers of its outputs as labels.

    Args:
        arrays: Data as it was read, its labels unchanged.
        reading: How the run's own data was read.

    Raises:
        DataError: If inputs or targets are not what the run was trained on, or a class is unknown.
    """
    kind, space = spec.action.kind, spec.action
    for known, given in (
        (reading.headings, arrays.headings),
        (reading.target_headings, arrays.target_headings),
    ):
        check_order(known, given, "The run's data", arrays.name, same=True)
    if arrays.kind != kind:
        raise DataError(
            f"The targets of {arrays.name} are {IN_WORDS[arrays.kind]}. The run was trained on "
            f"{IN_WORDS[kind]}."
        )
    if kind == "classes":
        arrays = replace(arrays, targets=_outputs(arrays, reading, space.n))
    elif tuple(arrays.targets.shape[1:]) != space.value_shape:
        raise DataError(
            f"The targets of {arrays.name} have shape {list(arrays.targets.shape[1:])}. The run was "
            f"trained on {list(space.value_shape)}."
        )
    elif kind == "pixels":
        arrays = numbered_as(arrays, reading.classes or range(space.n))
    parts = [[path for path, _ in walk(tree)] for tree in (arrays.inputs, spec.obs)]
    if set(parts[0]) != set(parts[1]):
        names = [", ".join(map(".".join, paths)) or "a single input" for paths in parts]
        raise DataError(
            f"The inputs of {arrays.name} are {names[0]}. The run was trained on {names[1]}."
        )

    def column(path: Path, space: Space) -> Column:
        one = reading.of_part(path)
        part = replace(arrays, inputs=at_path(arrays.inputs, path))
        return _column(part, one, space, f"the inputs{called(path)} of {arrays.name}")

    targets = arrays.targets.to(space.dtype) if kind == "values" else arrays.targets
    return replace(arrays, inputs=map_paths(column, spec.obs), targets=targets)


def _column(part: Arrays, reading: Reading, space: Space, what: str) -> Column:
    """One column of inputs as a table holds it.

    Raises:
        DataError: If it is not what the run was trained on.
    """
    column: Any = part.inputs
    if isinstance(column, Tensor):
        return reading.stored(column, space, what)
    if is_ragged(space) and isinstance(column, Ragged):
        if column.shape[2:] != space.shape[1:]:
            raise DataError(
                f"{what[0].upper()}{what[1:]} have steps of shape {list(column.shape[2:])}. The run was "
                f"trained on {list(space.shape[1:])}."
            )
        return column.converted(lambda steps: reading.as_stored(steps, space, what), space.dtype)
    if tuple(column.shape[1:]) != space.shape or column.dtype != reading.dtype:
        kind = str(column.dtype).removeprefix("torch.")
        raise DataError(
            f"{what[0].upper()}{what[1:]} are {kind} {list(column.shape[1:])}. The run was trained on "
            f"{space}."
        )
    kept: Any = stored(part, Spec(space, Space(()))).inputs
    return kept


def _outputs(arrays: Arrays, reading: Reading, n: int) -> Tensor:
    """The output of each row's class, int64 `[N]`.

    Raises:
        DataError: For a class that the run does not know.
    """
    labels, inverse = arrays.targets.unique(return_inverse=True)
    values = [_value(arrays, label) for label in labels.tolist()]
    places = _places(arrays, reading, n)
    if unknown := [value for value in values if value not in places]:
        raise DataError(
            f"{arrays.name} holds the class {unknown[0]!r}. The run was trained on "
            f"{in_words(list(places))}.{of_other_kind(unknown[0], list(places))}"
        )
    return torch.tensor([places[value] for value in values])[inverse]


def _places(arrays: Arrays, reading: Reading, n: int) -> dict[Any, int]:
    """The output of each class, by the value that it has in this data."""
    known = reading.classes
    words = isinstance(_value(arrays, int(arrays.targets[0])), str)
    if known is None:
        places: dict[Any, int] = {number: number for number in range(n)}
    elif reading.listed and not words:
        # Numbers are places in the run's own list of classes.
        places = {number: number for number in range(len(known))}
    else:
        places = {value: number for number, value in enumerate(known)}
    if words and not any(isinstance(value, str) for value in places):
        # Numbers as words, such as the names of folders, or of classes that `subset=` chose.
        return {str(value): number for value, number in places.items()}
    return places


def _value(arrays: Arrays, label: int) -> Any:
    """What a label stands for: a word, a number or a boolean."""
    if arrays.values is None and arrays.names is not None:
        return arrays.names[label]
    return arrays.value(label)

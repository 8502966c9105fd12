"""Sequences of different lengths among the inputs: recognised, checked, and kept without padding."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..replay import DataError, Ragged
from ..replay.mapped import Mapped
from .arrays import Arrays
from .numbers import as_tensor, common_type, kept_type

_DIMENSIONS = (1, 2)  # Dimensions of a sequence: `[T]` or `[T, features]`. More are pictures.

ALONE = (
    "Inside a dict of inputs, sequences must have one length: pad them and give their lengths as another "
    "part of the dict, or give the sequences alone."
)


def sequences(values: Any, what: str) -> Ragged | Tensor | None:
    """Rows of different lengths as one column; None if their lengths are equal, or they are not rows.

    Args:
        values: A list of sequences, an array of such objects, or one of torch's nested tensors, which becomes
            a plain tensor if its rows have one length.
        what: What errors call it.

    Raises:
        DataError: If a sequence is empty, holds something other than numbers, or differs from the others in
            more than its length.
    """
    if isinstance(values, Tensor):
        return _of_nested(values, what) if values.is_nested else None
    rows = _rows(values)
    if rows is None or len({len(row) for row in rows}) < 2:
        return None
    if all(isinstance(row, (list, tuple)) for row in rows):
        # At once: a conversion for each row would take ten times as long.
        steps = as_tensor(list(chain.from_iterable(rows)), what)
        return _checked(steps, [len(row) for row in rows], what)
    return of_rows([as_tensor(row, what) for row in rows], what)


def of_rows(rows: list[Tensor], what: str) -> Ragged:
    """Sequences `[T_i, *features]` as one column, in a dtype that holds the numbers of all.

    Raises:
        DataError: As `sequences`.
    """
    first, dtype = rows[0], kept_type(rows[0].dtype)
    for i, row in enumerate(rows):
        if row.shape[1:] != first.shape[1:]:
            raise DataError(
                f"{what} holds sequences of shapes {list(first.shape)} at 0 and {list(row.shape)} at {i}. "
                "They may differ in their first dimension only: pad or crop the others."
            )
        both = common_type(dtype, kept_type(row.dtype))
        if both is None:
            raise DataError(
                f"{what} holds sequences of {_word(dtype)} at 0 and of {_word(row.dtype)} at {i}. "
                "Give all of them one dtype."
            )
        dtype = both
    return _checked(torch.cat([row.to(dtype) for row in rows]), [len(row) for row in rows], what)


def are_sequences(one: Tensor, other: Tensor) -> bool:
    """Whether two rows differ in length only, as sequences do and pictures do not."""
    dims = one.dim()
    return dims == other.dim() and dims in _DIMENSIONS and one.shape[1:] == other.shape[1:]


def ragged(column: Any) -> Ragged:
    """Rows of one length, `[N, T, *features]`, as a column of sequences."""
    if isinstance(column, Ragged):
        return column
    rows, steps = column.shape[:2]
    return Ragged(column.flatten(0, 1), torch.arange(rows + 1) * steps)


def alike_in_length(parts: list[Arrays]) -> list[Arrays]:
    """Parts of the data: if rows of any part are sequences of different lengths, those of all parts are.

    Raises:
        DataError: If a part cannot be kept so: it is read from its source at each use, or altered for each
            task.
    """
    if not any(isinstance(part.inputs, Ragged) for part in parts):
        return parts
    for part in parts:
        if part.alterations is not None:
            raise DataError(f"{part.name} alters rows for each task, which must have one length.")
        if not isinstance(part.inputs, Ragged) and not _could_be_sequences(part.inputs):
            raise DataError(
                f"{parts[0].name} holds sequences of different lengths, and {part.name} does not. "
                "Give all of them as lists of sequences."
            )
    return [replace(part, inputs=ragged(part.inputs)) for part in parts]


def note_on_lengths(parts: list[Arrays]) -> str | None:
    """A remark on sequences of different lengths, for the run's header; None: there are none."""
    columns: list[Any] = [part.inputs for part in parts if isinstance(part.inputs, Ragged)]
    if not columns:
        return None
    lengths = torch.cat([column.lengths for column in columns])
    return f"sequences of {int(lengths.min())} to {int(lengths.max())} steps, padded with 0 in each batch"


def check_targets(inputs: object, targets: object, name: str) -> None:
    """Raise DataError for targets that are sequences of different lengths, as their inputs are."""
    rows = _rows(targets) if isinstance(inputs, Ragged) else None
    if rows is not None and len({len(row) for row in rows}) > 1:
        raise DataError(
            f"The targets of {name} are sequences of different lengths. Sequences have one target each, a "
            "class or values; a target for each step (labelling, translation) is not supported."
        )


def row_shape(column: Any) -> list[Any]:
    """The shape of a column's rows, for comparison and errors; T is the length of sequences."""
    return ["T", *column.shape[2:]] if isinstance(column, Ragged) else list(column.shape[1:])


def stored_values(column: Tensor | Ragged | Mapped) -> tuple[Tensor, ...]:
    """The tensors that a column in memory consists of, its values first; those of a mapped one are read."""
    if isinstance(column, Ragged):
        return column.values, column.offsets
    return (column[:] if isinstance(column, Mapped) else column,)


def _could_be_sequences(column: Any) -> bool:
    return isinstance(column, Tensor) and column.dim() - 1 in _DIMENSIONS


def _rows(values: Any) -> list[Any] | None:
    """The rows of a list, or of an array of objects, if each of them has a length; else None."""
    if isinstance(values, (list, tuple)):
        rows = list(values)
    elif str(getattr(values, "dtype", "")) == "object" and getattr(values, "ndim", 0) == 1:
        rows = list(values.to_numpy() if hasattr(values, "to_numpy") else values)
    else:
        return None
    plain = all(isinstance(row, (list, tuple)) or np.ndim(row) > 0 for row in rows[:1])
    return rows if plain and all(map(_has_length, rows)) else None


def _has_length(row: Any) -> bool:
    if isinstance(row, (list, tuple)):
        return True
    return hasattr(type(row), "__array__") and getattr(row, "ndim", 0) > 0


def _of_nested(values: Tensor, what: str) -> Ragged | Tensor:
    rows = [row.detach().cpu() for row in values.unbind()]
    if len({len(row) for row in rows}) > 1:
        return of_rows([as_tensor(row, what) for row in rows], what)
    if len({row.shape for row in rows}) > 1:
        return of_rows(rows, what)  # Raises: they differ elsewhere.
    return torch.stack(rows)


def _checked(steps: Tensor, lengths: list[int], what: str) -> Ragged:
    if 0 in lengths:
        raise DataError(
            f"{what} holds an empty sequence, at {lengths.index(0)}. Leave such rows out, or give them one "
            "step, such as a token that stands for nothing."
        )
    if steps.dim() not in _DIMENSIONS:
        shape = ["T", *steps.shape[1:]]
        raise DataError(
            f"{what} holds sequences of different lengths whose steps have the shape {list(steps.shape[1:])} "
            f"({shape}). Steps may be numbers or vectors: flatten them, or pad the sequences to one length."
        )
    return Ragged(steps.to(kept_type(steps.dtype)), torch.tensor([0, *lengths]).cumsum(0))


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

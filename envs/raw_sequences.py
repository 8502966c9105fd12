"""Raw sequences of different lengths as stored rows, for a run that learnt from sequences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..replay import DataError, Ragged, Space
from .forms import form, is_array
from .lengths import of_rows, ragged, sequences
from .numbers import as_tensor
from .raw_inputs import of_dataset


class SequenceRows:
    """Sequences as stored rows, padded a part at a time.

    Args:
        column: All of them, as tables store them.

    Attributes:
        files: None: they come from no files.
    """

    files = None

    def __init__(self, column: Ragged):
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def parts(self, size: int) -> Iterator[Tensor]:
        """Stored rows `[n, T, *features]`, marked with their lengths, at most `size` at a time, in order."""
        for index in torch.arange(len(self)).split(size):
            yield self._column.take(index)


def sequence_column(inputs: object, space: Space, name: str) -> Ragged:
    """Sequences in any form that a data set may have, or a single one, as they were read.

    Raises:
        DataError: If they are none, or their steps have another shape than those of the training.
    """
    what = f"Part of {name}"
    if isinstance(inputs, tuple) and len(inputs) == 2 and is_array(inputs[1]):
        inputs = inputs[0]  # `(inputs, targets)`.
    column: Any
    if isinstance(inputs, (str, Path)):
        raise DataError(
            f"{name[:1].upper()}{name[1:]} are a path. The run was trained on sequences: give a list of them."
        )
    if isinstance(inputs, (bool, int, float)):
        raise _other_shape([], space, name)
    if form(inputs) == "items" or not (isinstance(inputs, (list, tuple)) or is_array(inputs)):
        items = of_dataset(inputs, name, None)
        rows = [as_tensor(items[i], what).cpu() for i in range(len(items))]
        column = of_rows(rows, what) if rows else torch.empty(0)
    else:
        column = sequences(inputs, what)
        column = as_tensor(inputs, what).cpu() if column is None else column
    if isinstance(column, Tensor):
        if column.dim() == len(space.shape):  # A single sequence.
            column = column[None]
        if column.dim() != len(space.shape) + 1 or 0 in column.shape:
            raise _other_shape(list(column.shape), space, name)
        column = ragged(column)
    if column.shape[2:] != space.shape[1:]:
        raise _other_shape(["N", "T", *column.shape[2:]], space, name)
    return column


def _other_shape(given: list[Any], space: Space, name: str) -> DataError:
    shape = ", ".join(map(str, ("T", *space.shape[1:])))
    return DataError(
        f"{name[:1].upper()}{name[1:]} have shape [{', '.join(map(str, given))}]. The run was trained on "
        f"sequences [{shape}] of different lengths. Give a list of such sequences, or a single one."
    )

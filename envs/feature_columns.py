"""Columns of Hugging Face data sets as arrays, sequences and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..replay import DataError, Ragged
from ..replay.mapped import Chunks, Mapped
from .images import check_format
from .media import refusal
from .numbers import kept_type

if TYPE_CHECKING:
    import pyarrow as pa

SCALAR = ("Value", "ClassLabel")
"""Features that are single numbers or words."""
LISTS = ("List", "LargeList", "Sequence")
"""Features that are lists."""


def column_of(
    column: pa.ChunkedArray, feature: Any, name: str, source: str, *, mapped: bool = False
) -> Any:
    """A column as an array `[N, *shape]`, as sequences, or as pictures.

    Args:
        mapped: Whether arrays stay where Arrow has them, in a mapped file mostly.
    """
    what, kind = f"`{name}` of {source}", kind_of(feature)
    if column.null_count:
        raise DataError(f"Column {what} is empty in {column.null_count:,} of {len(column):,} rows.")
    if kind == "Image":
        return Images(column, what)
    if kind in ("Audio", "Video"):
        raise DataError(refusal(f"Column {what}", kind.lower()))
    if kind.startswith("Array"):
        return _array(column, tuple(feature.shape), what, mapped=mapped)
    if kind in LISTS:
        return _lists(column, what, mapped=mapped)
    if kind in SCALAR and getattr(feature, "dtype", "") not in ("string", "large_string"):
        return torch.from_numpy(np.array(column.to_numpy()))
    if kind in SCALAR:
        raise DataError(text_error(name, source, f"or leave it out: drop={name}"))
    raise DataError(
        f"Column {what} is a {kind}, which cannot be a model's input. Choose others: inputs=[...]."
    )


def kind_of(feature: Any) -> str:
    """The name of a feature's class, such as `ClassLabel`."""
    return "List" if isinstance(feature, list) else type(feature).__name__


class Images:
    """The pictures of a column, decoded one by one.

    Args:
        index: The rows of the column that these are, int64 `[N]`; None: all, in its order.
    """

    def __init__(self, column: pa.ChunkedArray, what: str, index: Tensor | None = None):
        self.column, self.what, self.index = column, what, index

    def __len__(self) -> int:
        return len(self.column if self.index is None else self.index)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Any:
        from PIL import Image, ImageOps

        held = self.column[i if self.index is None else int(self.index[i])].as_py()
        if held is None:
            raise DataError(f"Row {i} of {self.what} has no picture.")
        file = held["path"] if held["bytes"] is None else BytesIO(held["bytes"])
        try:
            with Image.open(file) as image:
                check_format(image, f"Row {i} of {self.what}")
                # In its own mode: what is grey has one channel. Upright, as their library returns it.
                return ImageOps.exif_transpose(image)
        except DataError:
            raise
        except Exception as error:  # PIL's decoders raise nearly anything.
            raise DataError(
                f"Row {i} of {self.what} cannot be read as a picture ({type(error).__name__}: {error})."
            ) from error

    def rows(self, index: Tensor) -> Images:
        """Some pictures of a whole column alone, int64 `[n]`."""
        return Images(self.column, self.what, index)


def _array(
    column: pa.ChunkedArray, shape: tuple[int | None, ...], what: str, *, mapped: bool
) -> Tensor | Mapped:
    """Arrays of one shape: `[N, *shape]`, in the dtype in which they were saved."""
    import pyarrow as pa

    if None in shape:
        raise DataError(
            f"Column {what} holds arrays of different lengths ({list(shape)}). Pad or crop them to one shape."
        )
    column = pa.chunked_array([chunk.storage for chunk in column.chunks])
    if (
        mapped
        and (found := _in_place(column, tuple(size or 0 for size in shape), what)) is not None
    ):
        return found
    values = _flat(column, len(shape))
    numbers = torch.from_numpy(np.array(values.to_numpy()))
    if len(numbers) != len(column) * prod(size or 0 for size in shape):
        raise DataError(f"Column {what} holds arrays of shapes other than {list(shape)}.")
    return numbers.view(len(column), *(size or 0 for size in shape))


def _in_place(column: pa.ChunkedArray, shape: tuple[int, ...], what: str) -> Mapped | None:
    """Nested lists of one shape where they are; None: they have to be copied, as bits have to.

    Args:
        shape: That of a row, each size the length of a list.
    """
    import pyarrow as pa

    arrays = []
    for chunk in column.chunks:
        values = chunk
        for _ in shape:
            values = values.flatten()
        if values.null_count or pa.types.is_boolean(values.type):
            return None
        if len(values) != len(chunk) * prod(shape):
            raise DataError(f"Column {what} holds arrays of shapes other than {list(shape)}.")
        if len(chunk):
            arrays.append(values.to_numpy(zero_copy_only=True).reshape(len(chunk), *shape))
    return Mapped.of(Chunks(arrays)) if arrays else None


def _lists(column: pa.ChunkedArray, what: str, *, mapped: bool) -> Any:
    """Lists of numbers, perhaps nested: an array if all have one length, else sequences."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = np.asarray(pc.list_value_length(column).to_numpy(), np.int64)
    values, features = _flat(column, 1), []
    while pa.types.is_nested(values.type):  # Steps that are vectors themselves.
        sizes = pc.unique(pc.list_value_length(values)).to_pylist()
        if len(sizes) != 1:
            raise DataError(
                f"Column {what} holds lists of lists of different lengths. Pad the inner ones."
            )
        features.append(sizes[0])
        values = _flat(values, 1)
    if not (
        pa.types.is_integer(values.type)
        or pa.types.is_floating(values.type)
        or pa.types.is_boolean(values.type)
    ):
        raise DataError(
            f"Column {what} holds lists of {values.type}, not of numbers. Encode them first."
        )
    if values.null_count:
        raise DataError(f"Column {what} holds lists with missing values.")
    alike = len(lengths) > 0 and bool((lengths == lengths[0]).all())
    if mapped and alike:
        found = _in_place(column, (int(lengths[0]), *features), what)
        if found is not None:
            return found
    numbers = torch.from_numpy(np.array(values.to_numpy())).view(-1, *features)
    if alike:
        return numbers.view(len(column), int(lengths[0]), *features)
    if not lengths.all():
        empty = (lengths == 0).nonzero()[0]
        raise DataError(
            f"Column {what} holds {len(empty)} empty lists (first: row {empty[0]}). Drop these rows."
        )
    offsets = torch.from_numpy(np.concatenate(([0], lengths.cumsum())))
    return Ragged(numbers.to(kept_type(numbers.dtype)), offsets)


def _flat(column: pa.ChunkedArray, depth: int) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    for _ in range(depth):
        column = pc.list_flatten(column)
    return column


def text_error(column: str, name: str, otherwise: str) -> str:
    """The error for a column of text, which says how to encode it, and what to do otherwise."""
    return (
        f"Column `{column}` of {name} holds text. Turn it into numbers first, as in "
        f"data = data.map(lambda row: {{'tokens': tokenizer(row['{column}'])['input_ids']}}), and set "
        f"inputs=tokens; {otherwise}."
    )

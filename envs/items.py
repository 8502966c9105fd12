"""Reads a user's data set item by item as tensors: all once, or each at every use."""

from __future__ import annotations

import os
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..replay import DataError, LazyColumn, Ragged
from ..replay.mapped import InFile, Mapped
from ..replay.storage import TableField
from ..replay.tree import Path, at_path, leaves, map_paths, map_tree, zip_trees
from . import in_memory
from .forms import is_image, is_scalar
from .images import Pictures
from .inputs import called
from .item import ItemSource
from .layout import channels_first
from .lengths import ALONE, are_sequences, of_rows
from .mapping import new_file
from .numbers import as_tensor, common_type
from .pixel_masks import mask_of

# Items are decoded at each reading if all of them would not fit into this share of memory.
_MEMORY_SHARE = 0.5
# Parts of dicts that are the same at each reading are kept if they take less than this share.
_KEPT_SHARE = 0.1
# Pairs of readings: a flip with probability 0.1 goes unnoticed in fewer than 1 of 1e5.
_COMPARED = 60
_COPIED = 4096  # Rows copied at once.
_PROBED = 1000  # Items whose targets are compared before only inputs are read at each use.

_IN_MEMORY = "Sequences of different lengths have to fit in memory and be the same at each reading."
_NESTS = (Tensor, np.ndarray, Mapping, list, tuple)


def decode(
    source: Any,
    name: str,
    pictures: Pictures,
    channels: str | None,
    folders: Sequence[pathlib.Path] | None = None,
) -> tuple[TableField, Any]:
    """Read a data set item by item into memory or into files, or prepare to read it at each use.

    Args:
        folders: Where rows are written to, instead of being kept in memory; none: they are read at each
            use; None: they are kept.

    Returns:
        Inputs `[N, *shape]`, or a dict of them where items hold one, and targets as a list or in the form in
        which the data set lists them.
    """
    items = ItemSource(source, name)
    n = len(items)
    if n == 0:
        raise DataError(f"{name} is empty: there is nothing to learn from.")
    converts = _converts(items, n, name, pictures, channels)

    def convert(item: Any) -> Any:
        return map_tree(lambda part: part(item), converts)

    forms = map_paths(lambda path, row: _Form(row, path, name), convert(items[0]))
    fits = sum(form.nbytes for form in leaves(forms)) * n < _MEMORY_SHARE * _memory_bytes()
    fits = bool(folders) if folders is not None else fits
    changing, targets_change = _changes(items, convert, n)
    if targets_change and not fits:
        raise DataError(
            f"Targets of {name} differ from one reading to the next, and its {n:,} items do not "
            "fit in memory, so they cannot be read once and kept. Draw the targets once, in "
            "__init__."
        )
    if fits and (targets_change or not any(leaves(changing))):
        return _read_once(items, convert, name, pictures, warn=targets_change, folders=folders)
    # Random transforms are sampled at each reading; data too large for memory is read from its source.
    targets, parts = in_memory.labels(source), forms
    if targets is None:
        targets, parts = _read_rest(items, convert, forms, changing, pictures, keep=folders is None)
        if _differ(items, targets, pictures):
            if fits:
                return _read_once(items, convert, name, pictures, warn=True, folders=folders)
            raise DataError(
                f"Targets of {name} differ from one reading to the next. Draw them once, in __init__."
            )

    return _columns(items, parts, converts, changing), targets


def _columns(items: ItemSource, parts: Any, converts: Any, changing: Any) -> TableField:
    """The columns of inputs that are read at each use, but for those that are kept."""

    def column(
        part: _Form | _Filled, convert: Callable[[Any], Tensor], changes: bool
    ) -> LazyColumn | Tensor | Ragged | Mapped:
        if isinstance(part, _Filled):
            return part.column()
        return LazyColumn(
            items,
            lambda item: part.fitted(convert(item)),
            shape=part.shape,
            dtype=part.dtype,
            changes=changes,
        )

    columns: TableField = zip_trees(column, parts, converts, changing)
    return columns


class _Form:
    """The shape and type that all rows of one part of the inputs share.

    Args:
        row: The first one.
        path: The part's keys; `()`: there is only one.
    """

    def __init__(self, row: Tensor, path: Path, name: str):
        self.shape, self.dtype, self.nbytes = tuple(row.shape), row.dtype, row.nbytes
        self._name, self.path = name, path

    def put(self, row: Tensor, i: int) -> None:
        """Check row i, and widen the type for it."""
        self._check_shape(row, f" at {i}")
        if row.dtype != self.dtype:
            self.dtype = self._wider(row.dtype, i)

    def fitted(self, row: Tensor) -> Tensor:
        """A row in the type of all."""
        self._check_shape(row, "")
        if row.dtype != self.dtype and common_type(row.dtype, self.dtype) != self.dtype:
            raise DataError(f"{self.items} differ in type: {row.dtype} and {self.dtype}.")
        return row.to(self.dtype)

    @property
    def items(self) -> str:
        """What errors call the rows."""
        if not self.path:
            return f"Items of {self._name}"
        return f"The inputs{called(self.path)} of the items of {self._name}"

    def _check_shape(self, row: Tensor, where: str) -> None:
        if row.shape != self.shape:
            advice = ""
            if are_sequences(row, torch.empty(self.shape)):
                advice = f" {ALONE if self.path else _IN_MEMORY}"
            raise DataError(
                f"{self.items} differ in shape: {list(self.shape)} at 0, {list(row.shape)}{where}.{advice}"
            )

    def _wider(self, dtype: torch.dtype, i: int) -> torch.dtype:
        """The dtype that holds the rows so far and row i."""
        if (both := common_type(dtype, self.dtype)) is None:
            raise DataError(
                f"{self.items} differ in type: {self.dtype} at 0, {dtype} at {i}. Give all of them one "
                "dtype."
            )
        return both


class _Filled:
    """A column that is filled row by row: with rows of one shape, or with sequences of different lengths."""

    def __init__(self, form: _Form, n: int, folders: Sequence[pathlib.Path] | None = None):
        self._form, self._alone = form, not form.path
        self._folders = folders
        self.rows = self._empty(n)
        self._sequences: list[Tensor] = []  # Once a row has another length than the first.

    def put(self, row: Tensor, i: int) -> None:
        if self._sequences:
            self._sequences.append(row)
            return
        different = self._alone and row.shape != self._form.shape
        if different and are_sequences(row, self.rows[0]):
            self._sequences = [*self.rows[:i].unbind(), row]
            return
        self._form.put(row, i)
        if self.rows.dtype != self._form.dtype:  # Assigning would cut fractions.
            wider = self._empty(len(self.rows))
            for start in range(0, i, _COPIED):
                part = slice(start, min(i, start + _COPIED))
                wider[part] = self.rows[part]
            self.rows = wider
        self.rows[i] = row

    def _empty(self, n: int) -> Tensor:
        shape, dtype = (n, *self._form.shape), self._form.dtype
        if self._folders is None:
            return torch.empty(shape, dtype=dtype)
        return torch.from_numpy(new_file(shape, dtype, self._folders))

    def column(self) -> Tensor | Ragged | Mapped:
        """All rows."""
        if self._sequences:
            return of_rows(self._sequences, self._form.items)
        return self.rows if self._folders is None else Mapped.of(InFile(self.rows.numpy()))


def _read_rest(
    items: ItemSource,
    convert: Callable[[Any], Any],
    forms: Any,
    changing: Any,
    pictures: Pictures,
    *,
    keep: bool,
) -> tuple[list[Any], Any]:
    """The targets, and for each part of the inputs its form or, if it is kept in memory, its rows.

    Args:
        forms: The form of each part, which is widened for the types of all items.
        changing: Whether each part differs from one reading to the next.
        keep: Whether parts that take little memory are kept.
    """
    n = len(items)
    most = _KEPT_SHARE * _memory_bytes() / (n * len(leaves(forms))) if keep else 0

    def part_of(form: _Form, changes: bool) -> _Form | _Filled:
        return form if changes or form.nbytes > most else _Filled(form, n)

    parts, targets = zip_trees(part_of, forms, changing), []
    for i in range(n):
        item = items[i]
        zip_trees(lambda part, row: part.put(row, i), parts, convert(item))  # noqa: B023
        targets.append(mask_of(item, pictures, items.name))
    return targets, parts


def _differ(items: ItemSource, targets: list[Any], pictures: Pictures) -> bool:
    """Whether another reading of some items gives other targets."""
    probed = range(0, len(items), max(1, -(-len(items) // _PROBED)))
    return any(not _equal(mask_of(items[i], pictures, items.name), targets[i]) for i in probed)


def _read_once(
    items: ItemSource,
    convert: Callable[[Any], Any],
    name: str,
    pictures: Pictures,
    *,
    warn: bool,
    folders: Sequence[pathlib.Path] | None,
) -> tuple[TableField, list[Any]]:
    """Inputs and targets of all items, each read once, in a dtype that holds all numbers."""
    if warn:
        warnings.warn(
            f"Items of {name} differ from one reading to the next, and so do their targets: each is read "
            "once and kept.",
            stacklevel=2,
        )
    targets: list[Any] = []
    filled: Any = None
    for i in range(n := len(items)):
        item = items[i]
        row = convert(item)
        if filled is None:
            filled = map_paths(
                lambda path, first: _Filled(_Form(first, path, name), n, folders), row
            )
        zip_trees(lambda column, part: column.put(part, i), filled, row)  # noqa: B023
        targets.append(mask_of(item, pictures, name))
    columns: TableField = map_tree(lambda column: column.column(), filled)
    return columns, targets


def _changes(items: ItemSource, convert: Callable[[Any], Any], n: int) -> tuple[Any, bool]:
    """Whether each part of the inputs, and whether targets, differ from one reading to the next.

    Rare draws are noticed too, and items of which only some are random.
    """
    looked_at = range(0, n, max(1, n // _COMPARED))
    # Looking must not change the run: the random stream is put back afterwards.
    with torch.random.fork_rng(devices=[]):
        inputs, targets = map_tree(lambda _: False, items[0][0]), False
        for i in looked_at:
            for _ in range(-(-_COMPARED // len(looked_at))):
                one, other = items[i], items[i]
                targets = targets or not _equal(one[1], other[1])
                readings = convert(one), convert(other)
                inputs = zip_trees(lambda c, a, b: c or not _equal(a, b), inputs, *readings)
    return inputs, targets


def _equal(one: Any, other: Any) -> bool:
    """Whether two readings are equal; NaN equals NaN, and is refused later."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if torch.equal(one, other):
            return True
        same = one.shape == other.shape and one.is_floating_point()
        return same and bool(torch.isclose(one, other, rtol=0, atol=0, equal_nan=True).all())
    parts = isinstance(one, (list, tuple)) and any(isinstance(part, _NESTS) for part in one)
    if parts and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):  # Also refused later.
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    try:
        arrays = np.asarray(one), np.asarray(other)
    except ValueError:  # Rows of different lengths: refused later.
        return bool(one == other)
    return np.array_equal(*arrays, equal_nan=all(array.dtype.kind == "f" for array in arrays))


def _memory_bytes() -> int:
    return (
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if hasattr(os, "sysconf")
        else 2**33
    )


def _converts(
    items: ItemSource, n: int, name: str, pictures: Pictures, channels: str | None
) -> Any:
    """For each part of the inputs a function from an item to its tensor, with images resized to one size."""

    def convert(path: Path, value: Any) -> Callable[[Any], Tensor]:
        if not is_image(value):
            part = called(path)
            what = f"The input{part} of {name}"

            def array(item: Any) -> Tensor:
                value = at_path(item[0], path)
                rows = as_tensor(value, what)[None]
                if path and is_scalar(value):  # As in a dict of arrays: [N], not [N, 1].
                    rows = rows.reshape(1)
                return channels_first(rows, name, channels, part=part)[0]

            return array
        own = pictures.of(path)
        # A hundred, spread over the data: decoding all of them twice could take minutes.
        own.settle(_picture(items[i], path, name) for i in range(0, n, max(1, n // 100)))
        return lambda item: own(_picture(item, path, name))

    return map_paths(convert, items[0][0])


def _picture(item: Any, path: Path, name: str) -> Any:
    value = at_path(item[0], path)
    if not is_image(value):
        raise DataError(
            f"Inputs{called(path)} of {name} are pictures in some items and a {type(value).__name__} in "
            "others. Give all of them in one form."
        )
    return value

"""Reads a user's data set item by item as tensors: all once, or each at every use."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from ..replay import DataError, LazyColumn, Ragged
from ..replay.storage import TableField
from ..replay.tree import Path, at_path, leaves, map_paths, map_tree, walk, zip_trees
from . import in_memory
from .forms import is_image, is_scalar
from .images import Pictures
from .inputs import called
from .layout import channels_first
from .lengths import are_sequences, of_rows
from .numbers import as_tensor, common_type
from .pixel_masks import mask_of

# Items are decoded at each reading if all of them would not fit into this share of memory.
_MEMORY_SHARE = 0.5
_COMPARED = (
    60  # Pairs of readings: a flip with probability 0.1 goes unnoticed in fewer than 1 of 1e5.
)
_PROBED = 1000  # Items whose targets are compared before only inputs are read at each use.

_NESTS = (Tensor, np.ndarray, Mapping, list, tuple)

AN_ITEM = "An item is (input, target)"
_AN_INPUT = (
    "An input is one array or picture, or a dict of several: {'image': ..., 'meta': ...}. Encode words as "
    "numbers."
)


def decode(
    source: Any, name: str, pictures: Pictures, channels: str | None
) -> tuple[TableField, Any]:
    """Read a data set item by item into memory, or prepare to read it at each use.

    Returns:
        Inputs `[N, *shape]`, or a dict of them where items hold one, and targets as a list or in the form in
        which the data set lists them.
    """
    items = _Items(source, name)
    n = len(items)
    if n == 0:
        raise DataError(f"{name} is empty: there is nothing to learn from.")
    converts = _converts(items, n, name, pictures, channels)

    def convert(item: Any) -> Any:
        return map_tree(lambda part: part(item), converts)

    forms = map_paths(lambda path, row: _Form(row, path, name), convert(items[0]))
    fits = sum(form.nbytes for form in leaves(forms)) * n < _MEMORY_SHARE * _memory_bytes()
    inputs_change, targets_change = _changes(items, convert, n)
    if targets_change and not fits:
        raise DataError(
            f"Targets of {name} differ from one reading to the next, and its {n:,} items do not "
            "fit in memory, so they cannot be read once and kept. Draw the targets once, in "
            "__init__."
        )
    if fits and (targets_change or not inputs_change):
        return _read_once(items, convert, name, pictures, warn=targets_change)
    # Random transforms are sampled at each reading; data too large for memory is read from its source.
    targets = in_memory.labels(source)
    if targets is None:
        targets = []
        for i in range(n):
            item = items[i]
            zip_trees(lambda form, row: form.admit(row, i), forms, convert(item))  # noqa: B023
            targets.append(mask_of(item, pictures, name))
        if any(
            not _equal(mask_of(items[i], pictures, name), targets[i])
            for i in range(0, n, max(1, -(-n // _PROBED)))
        ):
            if fits:
                return _read_once(items, convert, name, pictures, warn=True)
            raise DataError(
                f"Targets of {name} differ from one reading to the next. Draw them once, in __init__."
            )

    def lazy(form: _Form, part: Callable[[Any], Tensor]) -> LazyColumn:
        return LazyColumn(
            items,
            lambda item: form.fitted(part(item)),
            shape=form.shape,
            dtype=form.dtype,
            changes=inputs_change,
        )

    return zip_trees(lazy, forms, converts), targets


def plain_dict(value: Any, what: str) -> Any:
    """Inputs with mappings of any kind, nested too, as dicts; whatever else they are is unchanged.

    Args:
        what: How errors begin: "The inputs of MNIST are".

    Raises:
        DataError: If one is empty, or a key is not a string.
    """
    if not isinstance(value, Mapping):
        return value
    if not value:
        raise DataError(f"{what} an empty dict. {_AN_INPUT}")
    if wrong := [key for key in value if not isinstance(key, str)]:
        raise DataError(
            f"{what} a dict with the key {wrong[0]!r}. Name its parts with strings: models receive them by "
            "these names."
        )
    return {key: plain_dict(part, what) for key, part in value.items()}


class _Form:
    """The shape and type that all rows of one part of the inputs share.

    Args:
        row: The first one.
        path: The part's keys; `()`: there is only one.
    """

    def __init__(self, row: Tensor, path: Path, name: str):
        self.shape, self.dtype, self.nbytes = tuple(row.shape), row.dtype, row.nbytes
        self._name, self._path = name, path

    def admit(self, row: Tensor, i: int) -> None:
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
        """How errors call the rows."""
        if not self._path:
            return f"Items of {self._name}"
        return f"The inputs{called(self._path)} of the items of {self._name}"

    def _check_shape(self, row: Tensor, where: str) -> None:
        if row.shape != self.shape:
            advice = (
                " Sequences of different lengths have to fit in memory and be the same at each reading."
                if are_sequences(row, torch.empty(self.shape))
                else ""
            )
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

    def __init__(self, row: Tensor, path: Path, name: str, n: int):
        self._form, self._alone = _Form(row, path, name), not path
        self.rows = torch.empty((n, *row.shape), dtype=row.dtype)
        self._sequences: list[Tensor] = []  # Once a row has another length than the first.

    def put(self, row: Tensor, i: int) -> None:
        if self._sequences:
            self._sequences.append(row)
            return
        different = self._alone and row.shape != self._form.shape
        if different and are_sequences(row, self.rows[0]):
            self._sequences = [*self.rows[:i].unbind(), row]
            return
        self._form.admit(row, i)
        if self.rows.dtype != self._form.dtype:  # Assigning would cut fractions.
            self.rows = self.rows.to(self._form.dtype)
        self.rows[i] = row

    def column(self) -> Tensor | Ragged:
        """All rows."""
        return of_rows(self._sequences, self._form.items) if self._sequences else self.rows


def _read_once(
    items: _Items, convert: Callable[[Any], Any], name: str, pictures: Pictures, *, warn: bool
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
            filled = map_paths(lambda path, first: _Filled(first, path, name, n), row)
        zip_trees(lambda column, part: column.put(part, i), filled, row)  # noqa: B023
        targets.append(mask_of(item, pictures, name))
    columns: TableField = map_tree(lambda column: column.column(), filled)
    return columns, targets


class _Items:
    """The items of a data set, each checked to be `(input, target)`, with inputs of the same parts."""

    def __init__(self, source: Any, name: str):
        self.source, self.name = source, name
        self._parts: list[Path] | None = None  # Of the first item read; `[()]` where it is no dict.

    def __len__(self) -> int:
        try:
            return len(self.source)
        except Exception as error:
            raise DataError(
                f"The length of {self.name} raised {type(error).__name__}: {error}"
            ) from error

    def __getitem__(self, i: int) -> Any:
        item = read_item(self.source, i, self.name)
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise DataError(f"Item {i} of {self.name} is {_described(item)}. {_instead(item)}")
        if item[0] is None or item[1] is None:
            part = "input" if item[0] is None else "target"
            raise DataError(f"Item {i} of {self.name} has no {part} (None). {AN_ITEM}.")
        if isinstance(item[0], Mapping):
            return self._checked_dict(plain_dict(item[0], self._input(i)), i), item[1]
        if isinstance(item[0], (tuple, str, bytes)) and not _numbers(item[0]):
            raise DataError(f"{self._input(i)} {_described(item[0])}. {AN_ITEM}. {_AN_INPUT}")
        return self._checked_dict(item[0], i), item[1]

    def _input(self, i: int) -> str:
        return f"The input of item {i} of {self.name} is"

    def _checked_dict(self, value: Any, i: int) -> Any:
        """The input of item i, if it has the parts of the others."""
        parts = []
        for path, part in walk(value):
            parts.append(path)
            if path and part is None:
                raise DataError(f"{self._input(i)} a dict without a value in{called(path)} (None).")
            if path and isinstance(part, (str, bytes)):
                raise DataError(
                    f"{self._input(i)} a dict with text in{called(path)} ({part!r:.30}). Encode words as "
                    "numbers."
                )
        if self._parts is None:
            self._parts = parts
        elif set(self._parts) != set(parts):
            raise DataError(
                f"{self._input(i)} {_in_parts(parts)}, and that of others {_in_parts(self._parts)}. Give "
                "every item the same parts."
            )
        return value


def read_item(source: Any, i: int, name: str) -> Any:
    """Item i of a data set as it is; what reading it raises becomes a DataError that names the item."""
    try:
        return _raw_item(source, i)
    except DataError:
        raise  # Its message names the broken file.
    except Exception as error:
        raise DataError(f"Item {i} of {name} raised {type(error).__name__}: {error}") from error


def _raw_item(source: Any, i: int) -> Any:
    """An item as a DataLoader reads it: by the more derived of `__getitem__` and `__getitems__`."""
    if type(source) is Subset:
        # torch's Subset defines both methods, whatever its data set has: only the latter decides.
        return _raw_item(source.dataset, source.indices[i])
    for kind in type(source).__mro__:
        if "__getitem__" in vars(kind) and kind is not Dataset:
            return source[i]
        if "__getitems__" in vars(kind):
            return source.__getitems__([i])[0]
    return source[i]


def _numbers(value: Any) -> bool:
    """Whether a value is a tuple of numbers, perhaps nested: a row, as a list of them would be."""
    return isinstance(value, tuple) and all(
        is_scalar(v) if not isinstance(v, tuple) else _numbers(v) for v in value
    )


def _described(item: Any) -> str:
    """`a tuple of 3 (Tensor, Tensor, int)`, `a dict (image, label)`, `a Tensor`."""
    if isinstance(item, Mapping):
        return f"a dict ({', '.join(map(str, list(item)[:8]))})"
    if isinstance(item, (tuple, list)):
        kinds = ", ".join(type(part).__name__ for part in item[:6])
        return f"a {type(item).__name__} of {len(item)} ({kinds})"
    return f"a {type(item).__name__}"


def _in_parts(parts: list[Path]) -> str:
    """What the input of an item is: `a dict of a, b.c`, or `no dict`."""
    names = [".".join(path) for path in parts]
    return f"a dict of {', '.join(sorted(names))}" if names != [""] else "no dict"


def _instead(item: Any) -> str:
    if isinstance(item, (tuple, list)) and len(item) > 2:
        return (
            f"{AN_ITEM}, two parts: return two of them from __getitem__. Several inputs are a dict with "
            "names of your choice: return {'first': item[0], 'second': item[1]}, item[2]."
        )
    if isinstance(item, Mapping) and len(item) >= 2:
        *inputs, last = list(item)[:4]
        one = f"item[{inputs[0]!r}]"
        if len(inputs) > 1:
            one = "{" + ", ".join(f"{key!r}: item[{key!r}]" for key in inputs) + "}"
        return f"{AN_ITEM}: return {one}, item[{last!r}] from __getitem__, say."
    return f"{AN_ITEM}: return both from __getitem__."


def _changes(items: _Items, convert: Callable[[Any], Tensor], n: int) -> tuple[bool, bool]:
    """Whether inputs, and whether targets, differ from one reading to the next.

    Rare draws are noticed too, and items of which only some are random.
    """
    inputs = targets = False
    looked_at = range(0, n, max(1, n // _COMPARED))
    # Looking must not change the run: the random stream is put back afterwards.
    with torch.random.fork_rng(devices=[]):
        for i in looked_at:
            for _ in range(-(-_COMPARED // len(looked_at))):
                one, other = items[i], items[i]
                targets = targets or not _equal(one[1], other[1])
                inputs = inputs or not _equal(convert(one), convert(other))
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


def _converts(items: _Items, n: int, name: str, pictures: Pictures, channels: str | None) -> Any:
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

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

from ..replay import DataError, LazyColumn
from . import in_memory
from .forms import is_image, is_scalar
from .images import Pictures
from .layout import channels_first
from .numbers import as_tensor, common_type

# Items are decoded at each reading if all of them would not fit into this share of memory.
_MEMORY_SHARE = 0.5
_COMPARED = (
    60  # Pairs of readings: a flip with probability 0.1 goes unnoticed in fewer than 1 of 1e5.
)
_PROBED = 1000  # Items whose targets are compared before only inputs are read at each use.

_NESTS = (Tensor, np.ndarray, Mapping, list, tuple)

AN_ITEM = "An item is (input, target)"


def decode(
    source: Any, name: str, pictures: Pictures, channels: str | None
) -> tuple[Tensor | LazyColumn, Any]:
    """Read a data set item by item into memory, or prepare to read it at each use.

    Returns:
        Inputs `[N, *shape]`, and targets as a list or in the form in which the data set lists them.
    """
    items = _Items(source, name)
    n = len(items)
    if n == 0:
        raise DataError(f"{name} is empty: there is nothing to learn from.")
    convert = _convert(items, n, name, pictures, channels)
    example = convert(items[0])
    fits = example.nbytes * n < _MEMORY_SHARE * _memory_bytes()
    inputs_change, targets_change = _changes(items, convert, n)
    if targets_change and not fits:
        raise DataError(
            f"Targets of {name} differ from one reading to the next, and its {n:,} items do not "
            "fit in memory, so they cannot be read once and kept. Draw the targets once, in "
            "__init__."
        )
    if fits and (targets_change or not inputs_change):
        return _read_once(items, convert, name, warn=targets_change)
    # Random transforms are sampled at each reading; data too large for memory is read from its source.
    targets, dtype = in_memory.labels(source), example.dtype
    if targets is None:
        targets = []
        for i in range(n):
            item = items[i]
            tensor = _same_shape(convert(item), example.shape, i, name)
            dtype = _wider(dtype, tensor.dtype, i, name)
            targets.append(item[1])
        if any(not _equal(items[i][1], targets[i]) for i in range(0, n, max(1, -(-n // _PROBED)))):
            if fits:
                return _read_once(items, convert, name, warn=True)
            raise DataError(
                f"Targets of {name} differ from one reading to the next. Draw them once, in __init__."
            )

    def converted(item: Any) -> Tensor:
        tensor = _same_shape(convert(item), example.shape, None, name)
        if tensor.dtype != dtype and common_type(tensor.dtype, dtype) != dtype:
            raise DataError(f"Items of {name} differ in type: {tensor.dtype} and {dtype}.")
        return tensor.to(dtype)

    shape = tuple(example.shape)
    return LazyColumn(items, converted, shape=shape, dtype=dtype, changes=inputs_change), targets


def _read_once(
    items: _Items, convert: Callable[[Any], Tensor], name: str, *, warn: bool
) -> tuple[Tensor, list[Any]]:
    """Inputs and targets of all items, each read once, in a dtype that holds all numbers."""
    if warn:
        warnings.warn(
            f"Items of {name} differ from one reading to the next, and so do their targets: each is read "
            "once and kept.",
            stacklevel=2,
        )
    targets, inputs = [], torch.empty(0)
    for i in range(len(items)):
        item = items[i]
        tensor = convert(item)
        if i == 0:
            inputs = torch.empty((len(items), *tensor.shape), dtype=tensor.dtype)
        _same_shape(tensor, inputs.shape[1:], i, name)
        if tensor.dtype != inputs.dtype:  # Assigning would cut fractions.
            inputs = inputs.to(_wider(inputs.dtype, tensor.dtype, i, name))
        inputs[i] = tensor
        targets.append(item[1])
    return inputs, targets


class _Items:
    """The items of a data set, each checked to be `(input, target)`."""

    def __init__(self, source: Any, name: str):
        self.source, self.name = source, name

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
        if isinstance(item[0], (Mapping, tuple, str, bytes)) and not _numbers(item[0]):
            raise DataError(
                f"The input of item {i} of {self.name} is {_described(item[0])}. {AN_ITEM}: one array or "
                "picture, and a class or floats. Encode words as numbers; join several arrays into one."
            )
        return item


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


def _instead(item: Any) -> str:
    if isinstance(item, (tuple, list)) and len(item) > 2:
        return (
            f"{AN_ITEM}, two parts: return two of them from __getitem__, and join several inputs into "
            "one array."
        )
    if isinstance(item, Mapping) and len(item) >= 2:
        one, two = list(item)[:2]
        return f"{AN_ITEM}: return item[{one!r}], item[{two!r}] from __getitem__, say."
    return f"{AN_ITEM}: return both from __getitem__."


def _same_shape(tensor: Tensor, shape: Any, i: int | None, name: str) -> Tensor:
    if tensor.shape != shape:
        where = "" if i is None else f" at {i}"
        raise DataError(
            f"Items of {name} differ in shape: {list(shape)} at 0, {list(tensor.shape)}{where}."
        )
    return tensor


def _wider(dtype: torch.dtype, other: torch.dtype, i: int, name: str) -> torch.dtype:
    """The dtype that holds the items so far and item i."""
    if dtype == other:
        return dtype
    if (both := common_type(other, dtype)) is None:
        raise DataError(
            f"Items of {name} differ in type: {dtype} at 0, {other} at {i}. Give all of them one dtype."
        )
    return both


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


def _convert(
    items: _Items, n: int, name: str, pictures: Pictures, channels: str | None
) -> Callable[[Any], Tensor]:
    """A function from an item to its input as a tensor, with images resized to one size."""
    if not is_image(items[0][0]):
        what = f"The input of {name}"
        return lambda item: channels_first(as_tensor(item[0], what)[None], name, channels)[0]
    # A hundred, spread over the data: decoding all of them twice could take minutes.
    pictures.settle(_picture(items[i], name) for i in range(0, n, max(1, n // 100)))
    return lambda item: pictures(_picture(item, name))


def _picture(item: Any, name: str) -> Any:
    if not is_image(item[0]):
        raise DataError(
            f"Inputs of {name} are pictures in some items and a {type(item[0]).__name__} in others. Give "
            "all of them in one form."
        )
    return item[0]

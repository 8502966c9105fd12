"""A user's data as tensors: arrays as they are, a Dataset item by item."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset
from torchvision.datasets import VisionDataset

from ..replay import DataError, LazyColumn
from .images import converter, is_image
from .layout import channels_first, common_type

# Items are decoded at each reading when all of them would not fit into this share of memory.
_MEMORY_SHARE = 0.5


def as_tensor(value: Any, name: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"{name} holds lists of different lengths ({error}).") from error
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{name} holds {array.dtype}, not numbers. Encode words and objects as numbers first."
        )
    array = array.astype(array.dtype.newbyteorder("="), copy=not array.flags.writeable)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(array))


def torchvision_columns(source: Any) -> tuple[Tensor, Tensor] | None:
    """The arrays that many torchvision data sets hold already, if nothing is done to their items."""
    # A subclass that changes neither holds them too.
    reads = [getattr(type(source), name, None) for name in ("__getitem__", "__len__")]
    if not all(getattr(r, "__module__", "").startswith("torchvision.datasets") for r in reads):
        return None
    if any(getattr(source, t, None) for t in ("transform", "target_transform", "transforms")):
        return None
    inputs = getattr(source, "data", None)
    targets = getattr(source, "targets", getattr(source, "labels", None))
    if not isinstance(inputs, (np.ndarray, Tensor)) or targets is None:
        return None
    return torch.as_tensor(inputs), torch.as_tensor(targets)


def decode(source: Any, name: str, image_size: int | None) -> tuple[Tensor | LazyColumn, Tensor]:
    """Read a Dataset item by item, once, into memory; or prepare to read it at each use."""
    if isinstance(source, IterableDataset) or not (
        hasattr(source, "__getitem__") and hasattr(source, "__len__")
    ):
        raise DataError(
            f"{name} is a {type(source).__name__}, which is no data set. Give the name of one, a "
            "torch.utils.data.Dataset with __len__ and __getitem__, a folder, or a pair of arrays."
        )
    n = len(source)
    if n == 0:
        raise DataError(f"{name} is empty: there is nothing to learn from.")
    first = item_of(source, 0, name)
    convert = _convert(source, n, image_size, name)
    example = convert(first)
    fits = example.nbytes * n < _MEMORY_SHARE * _memory_bytes()
    if fits and not _changes(lambda i: convert(item_of(source, i, name)), n):
        inputs = torch.empty((n, *example.shape), dtype=example.dtype)
        targets = []
        for i in range(n):
            item = item_of(source, i, name)
            tensor = convert(item)
            if tensor.shape != example.shape:
                raise DataError(
                    f"Items of {name} differ in shape: {list(example.shape)} at 0, "
                    f"{list(tensor.shape)} at {i}."
                )
            if tensor.dtype != inputs.dtype:  # Put in as it is, a number would lose its fraction.
                if (wider := common_type(tensor.dtype, inputs.dtype)) is None:
                    raise DataError(
                        f"Items of {name} differ in type: {inputs.dtype} at 0, {tensor.dtype} at {i}. Give "
                        "all of them as one."
                    )
                inputs = inputs.to(wider)
            inputs[i] = tensor
            targets.append(item[1])
        return inputs, _stack(targets, name)
    # Random transforms must be drawn anew at each reading, and large data must not be kept.
    labels = _torchvision_labels(source)
    if labels is None:
        labels = _stack([item_of(source, i, name)[1] for i in range(n)], name)
    column = LazyColumn(source, convert, shape=tuple(example.shape), dtype=example.dtype)
    return column, labels


def _changes(item: Callable[[int], Tensor], n: int) -> bool:
    """Whether items differ from one reading to the next; a coin flip per item is noticed too."""
    with torch.random.fork_rng(devices=[]):
        return any(
            not torch.equal(item(i), item(i)) for i in range(0, n, max(1, n // 8)) for _ in range(3)
        )


def _stack(targets: list[Any], name: str) -> Tensor:
    plain = [t.detach().cpu().numpy() if isinstance(t, Tensor) else t for t in targets]
    return as_tensor(plain, f"The targets of {name}")


def _torchvision_labels(source: Any) -> Tensor | None:
    """The labels that torchvision's own data sets list, where nothing is done to them."""
    if not isinstance(source, VisionDataset) or source.target_transform is not None:
        return None
    if not type(source).__module__.startswith("torchvision."):
        return None
    labels = getattr(source, "targets", None)
    return torch.as_tensor(labels) if isinstance(labels, list) else None


def item_of(source: Any, i: int, name: str) -> Any:
    try:
        item = source[i]
    except Exception as error:
        raise DataError(f"Item {i} of {name} raised {type(error).__name__}: {error}") from error
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        raise DataError(f"Item {i} of {name} is a {type(item).__name__}, not (input, target).")
    return item


def _memory_bytes() -> int:
    return (
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if hasattr(os, "sysconf")
        else 2**33
    )


def _convert(source: Any, n: int, image_size: int | None, name: str) -> Callable[[Any], Tensor]:
    """A function from an item to its input as a tensor, images resized to one size."""
    if not is_image(item_of(source, 0, name)[0]):
        return lambda item: channels_first(as_tensor(item[0], name)[None])[0]
    some = range(0, n, max(1, n // 100)) if image_size is None else [0]
    convert = converter([item_of(source, i, name)[0].size for i in some], image_size)
    return lambda item: convert(item[0])

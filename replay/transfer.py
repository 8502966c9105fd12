"""Transfers of tensors to an accelerator and back: one copy, however many tensors there are.

A copy costs some ten microseconds whatever its size, and a copy from ordinary memory makes the host wait.
Tensors sent together are therefore packed into one buffer, page-locked if that lets the device fetch it
asynchronously.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .devices import has_float64, pins_memory, waits_for_copies
from .tree import leaves, map_tree

_ALIGN = 16  # Bytes: the largest element there is (complex128).

Empty = Callable[[tuple[int, ...], np.dtype[Any]], np.ndarray]
"""Allocates an array with a shape and dtype, like `numpy.empty`."""


class Parcel:
    """Host memory for the tensors of one batch, which are then sent to a device in one copy.

    `empty` allocates parts of it, so that rows can be gathered straight into it; `send` packs tensors from
    elsewhere behind them.

    The buffer belongs to this one batch: torch's allocator for page-locked memory does not reuse it before
    the copy is complete.

    Args:
        device: The destination.
        nbytes: Its size in bytes. What does not fit is sent in a second parcel.

    Attributes:
        wanted: Bytes requested so far: the size that would have sufficed.
    """

    def __init__(self, device: torch.device, nbytes: int):
        self.device, self.wanted, self._used = device, 0, 0
        self._buffer = torch.empty(
            _aligned(nbytes), dtype=torch.uint8, pin_memory=pins_memory(device.type)
        )
        self._bytes = self._buffer.numpy()
        self._begin = self._buffer.data_ptr()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """An array to fill: part of the parcel, or ordinary memory if the parcel is full."""
        size = prod(shape) * dtype.itemsize
        start = self._take(size)
        if start is None:
            return np.empty(shape, dtype)
        return self._bytes[start : start + size].view(dtype).reshape(shape)

    def _take(self, size: int) -> int | None:
        """The start of `size` bytes in the parcel, or None if it is full."""
        self.wanted += _aligned(size)
        start = self._used
        if start + size > len(self._bytes):
            return None
        self._used = start + _aligned(size)
        return start

    def send(self, tree: object) -> Any:
        """The tree with its tensors on the device; tensors already there and other leaves are unchanged."""
        places: dict[int, int] = {}  # Where each host tensor begins, by the tensor's id.
        rest: list[Tensor] = []
        for leaf in leaves(tree):
            if not isinstance(leaf, Tensor) or leaf.device.type != "cpu" or not leaf.numel():
                continue
            offset = leaf.data_ptr() - self._begin
            if 0 <= offset < self._used:
                places[id(leaf)] = offset
                continue
            if leaf.dtype == torch.float64 and not has_float64(self.device.type):
                rest.append(leaf)
                continue
            start = self._take(leaf.nbytes)
            if start is None:
                rest.append(leaf)
                continue
            room = self._buffer[start : start + leaf.nbytes]
            room.view(leaf.dtype).view(leaf.shape).copy_(leaf)
            places[id(leaf)] = start
        moved = self._buffer[: self._used].to(
            self.device, non_blocking=not waits_for_copies(self.device.type)
        )
        beside = dict(zip(map(id, rest), _sent_separately(rest, self.device), strict=True))
        views: dict[torch.dtype, Tensor] = {torch.uint8: moved}

        def there(leaf: object) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            if id(leaf) in beside:
                return beside[id(leaf)]
            if (start := places.get(id(leaf))) is None:
                return leaf.to(self.device)
            dtype = leaf.dtype
            if dtype not in views:
                views[dtype] = moved.view(dtype)
            # Packing makes a part contiguous; a part gathered in place keeps its strides.
            inside = leaf.data_ptr() == self._begin + start
            stride = leaf.stride() if inside else _contiguous(leaf.shape)
            return views[dtype].as_strided(leaf.shape, stride, start // dtype.itemsize)

        return map_tree(there, tree)


def upload(tree: object, device: torch.device) -> Any:
    """A tree with its tensors on `device`, in one copy. float64 becomes float32 where there is none."""
    if device.type == "cpu":
        return tree
    found = [x for x in leaves(tree) if isinstance(x, Tensor) and x.device.type == "cpu"]
    if not found:
        return tree
    return Parcel(device, sum(_aligned(x.nbytes) for x in found)).send(tree)


def _sent_separately(tensors: list[Tensor], device: torch.device) -> list[Tensor]:
    """Tensors that did not fit into the parcel, sent in one of their own."""
    if not tensors:
        return []
    if not has_float64(device.type):
        tensors = [x.float() if x.dtype == torch.float64 else x for x in tensors]
    parcel = Parcel(device, sum(_aligned(x.nbytes) for x in tensors))
    sent: dict[str, Tensor] = parcel.send({str(i): x for i, x in enumerate(tensors)})
    return list(sent.values())


def download(tree: object) -> Any:
    """A tree of tensors as a tree of NumPy arrays, with one copy from the device and one synchronisation.

    bfloat16, which NumPy does not support, becomes float32.
    """
    away = {id(x): x for x in leaves(tree) if isinstance(x, Tensor) and x.device.type != "cpu"}
    arrays: dict[int, np.ndarray] = {}
    if len(away) > 1:
        plain = {key: _plain(x) for key, x in away.items()}
        # The widest first: every part is then aligned.
        order = sorted(plain, key=lambda key: -plain[key].element_size())
        rows = [plain[key].reshape(-1).view(torch.uint8) for key in order]
        host = torch.cat(rows).cpu()
        parts = host.split([len(row) for row in rows])
        for key, part in zip(order, parts, strict=True):
            arrays[key] = part.view(plain[key].dtype).view(plain[key].shape).numpy()
    return map_tree(lambda x: arrays[id(x)] if id(x) in arrays else as_array(x), tree)


def as_array(value: object) -> np.ndarray:
    """A tensor, or anything that NumPy accepts, as an array."""
    if not isinstance(value, Tensor):
        return np.asarray(value)
    return _plain(value).numpy(force=True)


def _plain(x: Tensor) -> Tensor:
    x = x.detach()
    return x.float() if x.dtype is torch.bfloat16 else x


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _contiguous(shape: torch.Size) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))

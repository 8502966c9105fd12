"""States as JSON, in which names stand for tensors, arrays and the columns of replays."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ...replay import CheckpointError
from ...replay.blocks import SavedColumns

IN_MODEL = "model:"  # Before the names of tensors that are in the module's own file.
# Columns of fewer bytes are saved as arrays, whole, rather than in files of their own.
SMALL_COLUMNS = 4 * 2**20


class Packed:
    """A state as JSON, and what its names stand for; nothing is copied.

    Args:
        state: Nested dicts and lists of tensors, arrays and scalars.
        model: Tensors that are in the module's own file, by name.

    Attributes:
        tree: The JSON.
        values: The tensors and arrays by name, except those in `model`.
        columns: The columns of replays, by name.

    Raises:
        CheckpointError: If the state holds an object of any other type.
    """

    def __init__(self, state: object, model: Mapping[str, Tensor] | None = None):
        self.values: dict[str, Tensor | np.ndarray] = {}
        self.columns: dict[str, SavedColumns] = {}
        # The name of each tensor by its memory. It holds the tensor: once that is freed, another one could
        # have its address.
        self._names: dict[Any, tuple[str, Tensor]] = {}
        for name, value in (model or {}).items():
            self._names.setdefault(_memory(value), (f"{IN_MODEL}{name}", value))
        self.tree = self._pack(state)

    def _pack(self, value: object) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return {"$float": repr(float(value))}  # JSON has no NaN and no infinity.
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, np.generic):
            return self._pack(value.item())
        if isinstance(value, np.ndarray):
            return {"$array": {"$tensor": self._new(value)}}
        if isinstance(value, Tensor):
            memory = _memory(value)
            if value.numel() == 0 or memory not in self._names:
                self._names[memory] = (self._new(value), value)
            return {"$tensor": self._names[memory][0]}
        if isinstance(value, SavedColumns):
            return self._pack_columns(value)
        if isinstance(value, bytes):
            return {"$bytes": value.hex()}
        if isinstance(value, dict):
            if all(isinstance(key, str) and not key.startswith("$") for key in value):
                return {key: self._pack(item) for key, item in value.items()}
            return {"$dict": [[self._pack(k), self._pack(v)] for k, v in value.items()]}
        if isinstance(value, (list, collections.deque)):
            return [self._pack(item) for item in value]
        if isinstance(value, (tuple, set)):
            return {"$tuple": [self._pack(item) for item in value]}
        raise CheckpointError(f"Cannot save a {type(value).__name__} in a checkpoint.")

    def _pack_columns(self, columns: SavedColumns) -> Any:
        if columns.nbytes < SMALL_COLUMNS:
            return self._pack({name: np.asarray(column) for name, column in columns.items()})
        name = str(len(self.columns))
        self.columns[name] = columns
        return {"$columns": name}

    def _new(self, value: Tensor | np.ndarray) -> str:
        name = str(len(self.values))
        self.values[name] = value
        return name


class Sources(Protocol):
    """Where the values of a packed state are."""

    def tensor(self, name: str) -> Tensor:
        """A new tensor on the CPU, which nothing else refers to."""

    def columns(self, name: str) -> Mapping[str, Any]:
        """The columns of a replay."""


def unpack(value: Any, sources: Sources) -> Any:
    """The state that a tree stands for."""
    if isinstance(value, list):
        return [unpack(item, sources) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((kind, content),) = value.items()
        if kind == "$tensor":
            return sources.tensor(content)
        if kind == "$array":
            return unpack(content, sources).numpy()
        if kind == "$columns":
            return sources.columns(content)
        if kind in _SIMPLE:
            return _SIMPLE[kind](content)
        if kind == "$tuple":
            return tuple(unpack(item, sources) for item in content)
        if kind == "$dict":
            return {unpack(k, sources): unpack(v, sources) for k, v in content}
    return {key: unpack(item, sources) for key, item in value.items()}


_SIMPLE: dict[str, Callable[[Any], Any]] = {"$float": float, "$bytes": bytes.fromhex}


def copied(state: dict[str, Any]) -> dict[str, Any]:
    """`state` as if saved and read back: on the CPU, and sharing no memory with the original."""
    again: dict[str, Any] = unpack((packed := Packed(state)).tree, _Copies(packed))
    return again


class _Copies:
    """Copies of what a packed state refers to."""

    def __init__(self, packed: Packed):
        self._packed = packed

    def tensor(self, name: str) -> Tensor:
        value = self._packed.values[name]
        if isinstance(value, Tensor):
            return value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return torch.from_numpy(np.array(value, order="C", dtype=value.dtype.newbyteorder("=")))

    def columns(self, name: str) -> Mapping[str, Any]:
        columns = self._packed.columns[name]
        return {column: np.array(values) for column, values in columns.items()}


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    """Identifies the memory of a tensor, as long as the tensor exists."""
    return (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.device)

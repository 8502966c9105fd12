"""Restores what capture.py described, into the objects that the model's constructor made."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ....replay import Batch, CheckpointError
from ....replay.devices import current_move, destination, is_same
from .capture import SEQUENCES, memory, registered
from .checks import check_attributes, check_fields, check_object
from .held import hold
from .weights import copy_of_like, fill_empty_buffers, load_in_place


def load_attribute_state(
    module: nn.Module, state: dict[str, Any], *, classes: Iterable[type] = ()
) -> None:
    """Restore what `attribute_state` found, in place.

    Args:
        module: Built by the same constructor.
        state: What `attribute_state` returned.
        classes: Classes, beside those of the module's parts, whose code may assign attributes.

    Raises:
        CheckpointError: If it does not fit the module, or an object whose state was saved does not exist.
    """
    check_attributes(module, state, classes=classes)
    _load_attributes(module, state)


def _load_attributes(module: nn.Module, state: dict[str, Any]) -> None:
    restore = _Restore(registered(module))
    submodules = dict(module.named_modules())
    for path, captured in state["values"].items():
        owner_name, _, name = path.rpartition(".")
        if (owner := submodules.get(owner_name)) is not None:
            setattr(owner, name, restore(getattr(owner, name, None), captured, path))
    fill_empty_buffers(module, state["buffers"], state.get("places"))
    buffers = dict(module.named_buffers())
    for name, saved in state["buffers"].items():
        if name in buffers:
            buffers[name].copy_(saved)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in state["frozen"])
    for name, part in submodules.items():
        part.training = name not in state["in_eval"]


def load_object_state(value: object, state: Any, *, beside: nn.Module | None = None) -> None:
    """Restore what `object_state` found, in place.

    Args:
        state: What it returned; None: nothing is restored.
        beside: As for `object_state`.

    Raises:
        CheckpointError: If it does not fit the object.
    """
    if state is not None:
        check_object(value, state, beside=beside)
        _Restore({} if beside is None else registered(beside))(value, state, "object")


def load_optimizer_fields(
    optimizer: torch.optim.Optimizer, fields: Mapping[str, Any], *, beside: nn.Module
) -> None:
    """Restore what `optimizer_fields` found.

    Raises:
        CheckpointError: If it does not fit the optimiser.
    """
    check_fields(optimizer, fields, "optimizer", beside=beside)
    _Restore(registered(beside)).fields(optimizer, fields, "optimizer")


def load_part(part: Any, state: Any) -> None:
    """Load what `part.state_dict()` returned, with an optimiser's tensors in their parameters' memory format.

    A checkpoint holds them contiguously. Fused optimisers assume the strides of the parameter, channels last
    for example, and would otherwise pair each weight with another one's average.
    """
    part.load_state_dict(state)
    if not isinstance(part, torch.optim.Optimizer):
        return
    for parameter, kept in part.state.items():
        for name, value in kept.items():
            if not isinstance(value, Tensor) or value.shape != parameter.shape:
                continue
            if value.stride() != parameter.stride():
                kept[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


class _Restore:
    """Restores values from their descriptions, reusing the objects that the model's constructor made.

    Args:
        known: Modules, parameters and buffers that were restored by themselves, by name.

    Attributes:
        made: Everything restored so far, by its path.
        memory: Addresses of the storages that have been written.
    """

    def __init__(self, known: dict[str, Any]):
        self.made = dict(known)
        self.memory = {memory(v) for v in known.values() if isinstance(v, Tensor)}

    def __call__(self, current: object, captured: object, path: str) -> Any:
        if not isinstance(captured, dict):
            return captured
        kind = next(iter(captured))
        if kind == "$same":
            return self.made[captured[kind]]
        if kind == "$skip":
            return current
        if current is not None:
            self.made[path] = current  # Its contents may refer back to it.
        value = self._value(current, kind, captured[kind], captured, path)
        self.made[path] = value
        return value

    def _value(self, current: Any, kind: str, content: Any, whole: Any, path: str) -> Any:
        if kind in ("$tensor", "$leaf"):
            return self._tensor(current, content, whole)
        if kind == "$array":
            return content
        if kind == "$scalar":
            return content[()]
        if kind == "$sparse":
            return torch.sparse_coo_tensor(*content, is_coalesced=True)
        if kind == "$complex":
            return complex(*content)
        if kind == "$batch":
            return Batch(**{n: self(None, item, f"{path}.{n}") for n, item in content.items()})
        if kind == "$items":
            return self._items(current, content, path)
        if kind == "$sequence":
            return self._sequence(current, content, whole, path)
        if current is None and kind == "$module":
            current = copy_of_like(list(self.made.values()), content)
        if current is None:
            raise CheckpointError(
                f"The checkpoint holds the state of `{path}`, which does not exist when the model "
                "is built. Create it in __init__, so that it can be restored."
            )
        return self._in_place(current, kind, content, whole, path)

    def _items(self, current: object, content: list[list[Any]], path: str) -> Any:
        filled = self.made[path] = current if isinstance(current, dict) else {}
        made = {}
        for i, (key_state, item) in enumerate(content):
            key = self(None, key_state, f"{path} key {i}")
            made[key] = self(filled.get(key), item, f"{path}[{key!r}]")
        return _refill(filled, made)

    def _sequence(
        self, current: object, content: list[Any], whole: dict[str, Any], path: str
    ) -> Any:
        old: list[Any] = []
        if isinstance(current, (list, tuple, set, frozenset, collections.deque)):
            old = list(current)
        if whole["kind"] == "list" and not isinstance(current, list):
            current = self.made[path] = []  # Its contents may refer back to it.
        items = [
            self(old[i] if i < len(old) else None, item, f"{path}[{i}]")
            for i, item in enumerate(content)
        ]
        return _refill(current, items, kind=whole["kind"], maxlen=whole["maxlen"])

    def fields(self, owner: object, fields: Mapping[str, Any], path: str) -> None:
        """Restore an object's fields, bypassing `__setattr__`, which a frozen dataclass forbids."""
        for name, captured in fields.items():
            value = self(getattr(owner, name, None), captured, f"{path}.{name}")
            object.__setattr__(owner, name, value)

    def _tensor(self, current: object, content: Tensor, whole: dict[str, Any]) -> Tensor:
        owner = self.made.get(whole["shares"])
        if owner is not None and isinstance(current, Tensor) and memory(current) == memory(owner):
            if current.shape == content.shape and not _is_expanded(current):
                current.detach().copy_(content)  # Another part of the same memory.
            return current
        where = destination(whole.get("device", "cpu"))
        if isinstance(current, Tensor) and "constructed" in whole:
            where = current.device
        if (
            isinstance(current, Tensor)
            and (current.shape, current.dtype) == (content.shape, content.dtype)
            and is_same(current.device, where)
            and memory(current) not in self.memory
            and not _is_expanded(current)
        ):
            # Optimisers and other attributes may refer to this very tensor.
            current.detach().copy_(content)
            self.memory.add(memory(current))
            return current
        if owner is not None and whole["alias"]:
            return owner.detach()
        content = content.to(where)
        if "parameter" not in whole:
            return content
        return nn.Parameter(content) if whole["parameter"] else content.requires_grad_()

    def _in_place(self, current: Any, kind: str, content: Any, whole: Any, path: str) -> Any:
        if kind == "$enum":
            return type(current)[content]
        if kind == "$generator":
            _continue_generator(current, content, whole.get("device"), path)
        elif kind == "$random":
            version, words, gauss = content
            current.setstate((version, tuple(words), gauss))
        elif kind == "$numpy":
            current.bit_generator.state = content
        elif kind == "$numpy_legacy":
            current.set_state(tuple(content))
        elif kind == "$module":
            fill_empty_buffers(current, content, whole["attributes"].get("places"))
            load_in_place(current, content)
            _load_attributes(current, whole["attributes"])
        elif kind == "$state":
            if "held" in whole and isinstance(current, torch.optim.Optimizer):
                hold(current, whole["held"], self.made)
            load_part(current, content)
            self.fields(current, whole.get("fields", {}), path)
        else:
            self.fields(current, content, path)
        return current


def _continue_generator(
    generator: torch.Generator, state: Tensor, kind: str | None, path: str
) -> None:
    """Restore a generator's state, unless it was on another type of device; then it starts over.

    Args:
        state: uint8; its size depends on the type of device.
        kind: The type of device it was on, such as "cuda"; None: not recorded (before 0.5.0).
        path: Names the generator in the message about restarted streams.
    """
    move = current_move()
    if kind is not None and kind != generator.device.type and move is not None:
        move.restarted.append(f"`{path}`")
        return
    try:
        generator.set_state(state)
    except (RuntimeError, TypeError):  # Types of devices have states of different sizes.
        if kind is not None or move is None:
            raise
        move.restarted.append(f"`{path}`")


def _is_expanded(tensor: Tensor) -> bool:
    """Whether several elements share one memory location, so that the tensor cannot be written."""
    return tensor.numel() > 1 and 0 in tensor.stride()


def _refill(current: object, content: Any, *, kind: str = "dict", maxlen: int | None = None) -> Any:
    """Put `content` into the container that the model made, since other objects may refer to it."""
    if isinstance(current, collections.deque):
        current.clear()
        current.extend(content)
        return current
    if isinstance(current, (dict, list, set)):
        current.clear()
        current.extend(content) if isinstance(current, list) else current.update(content)
        return current
    if isinstance(current, tuple) and hasattr(current, "_fields"):
        return type(current)(*content)
    if kind == "deque":
        return collections.deque(content, maxlen)
    return content if kind == "dict" else SEQUENCES[kind](content)

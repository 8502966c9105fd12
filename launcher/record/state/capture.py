"""Describes what a module holds besides its weights: counters, optimisers, generators, buffers.

`state_dict` knows parameters and registered buffers only. A run that continues exactly also needs
`self.optim`, `self.steps`, `self.epsilon`, `self.memory`, ... wherever they are, which parameters are frozen,
and which parts are in eval mode. Everything becomes nested dicts and lists of tensors and scalars; nothing
is pickled.
"""

from __future__ import annotations

import collections
import enum
import functools
import inspect
import logging
import os
import random
import sys
import weakref
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from ....agents.traits import stated_traits
from ....replay import Batch
from ....replay.shown import holds_secret
from .held import held_names

OWN = frozenset(vars(nn.Module()))  # torch's own bookkeeping.
_PLAIN = (bool, int, float, str, bytes, type(None))
_CONSTANTS = (type, torch.device, torch.dtype, np.dtype)
_BARE_OBJECTS = ("SimpleNamespace", "Namespace")
SEQUENCES = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": collections.deque,
}


def attribute_state(module: nn.Module, constructed: Constructed | None = None) -> dict[str, Any]:
    """Everything that `module.state_dict()` leaves out.

    Args:
        constructed: The tensors that its constructor made; None: unknown.

    Returns:
        `values` of attributes by their path, `buffers` that are not persistent, `places` (the devices of
        buffers that are not on the CPU), and the names of `frozen` parameters and of modules `in_eval`.
    """
    capture = _Capture(registered(module), constructed)
    persistent = module.state_dict().keys()
    return {
        "values": {
            path: captured
            for path, value in _attributes(module).items()
            if (captured := capture(value, path)) is not _SKIP
        },
        "buffers": {n: b for n, b in module.named_buffers() if n not in persistent},
        "places": {n: str(b.device) for n, b in module.named_buffers() if b.device.type != "cpu"},
        "frozen": [name for name, p in module.named_parameters() if not p.requires_grad],
        "in_eval": [name for name, part in module.named_modules() if not part.training],
    }


def object_state(
    value: object,
    *,
    whole: bool = False,
    beside: nn.Module | None = None,
    constructed: Constructed | None = None,
) -> Any:
    """The state of any object that takes part in training: an augmentation, an environment.

    Args:
        beside: A module that is saved separately: its parts and tensors are stored as references.
        whole: Return None if something that may matter cannot be described, such as a simulator
            written in C.
        constructed: The tensors that its constructor made.
    """
    capture = _Capture({} if beside is None else registered(beside), constructed)
    captured = capture(value, "object")
    return None if captured is _SKIP or (whole and capture.left_out) else captured


def optimizer_fields(optimizer: torch.optim.Optimizer, *, beside: nn.Module) -> dict[str, Any]:
    """The attributes of a user-defined optimiser, which its `state_dict` leaves out.

    Args:
        beside: The module whose parameters it steps.
    """
    return _Capture(registered(beside)).fields(optimizer, "optimizer")


class Constructed:
    """The tensors that an object's constructor made, as opposed to those made while learning.

    On a CPU they look alike. If the run is continued on an accelerator, tensors that `learn` made move
    there, while the constructor decides where its own tensors are.

    Args:
        value: A module or strategy that was just constructed.
        beside: A module that is saved separately, as for `object_state`.
    """

    def __init__(self, value: object, *, beside: nn.Module | None = None):
        look = Look({} if beside is None else registered(beside))
        look(value, "object")
        # Weak references: once a tensor is freed, another may get its id.
        self._known = {id(x): weakref.ref(x) for x in look.kept if isinstance(x, Tensor)}

    def __contains__(self, value: object) -> bool:
        reference = self._known.get(id(value))
        return reference is not None and reference() is value


class _Capture:
    """Describes values; one seen before, or registered, becomes a reference to its first path.

    Args:
        known: Modules, parameters and buffers that are saved separately, by name.
        constructed: The tensors that the constructor made.

    Attributes:
        paths: Path of every object seen so far, by its id.
        memory: By the address of a storage, the path and region of the first tensor seen in it.
    """

    def __init__(self, known: dict[str, Any], constructed: Constructed | None = None):
        # An id is valid only while its object lives, so hold both.
        self._known, self.kept = known, list[object]()
        self.constructed = constructed
        self.paths = {id(value): path for path, value in reversed(list(known.items()))}
        self.memory = {
            memory(value): (path, _region(value))
            for path, value in known.items()
            if isinstance(value, Tensor)
        }
        self.left_out: list[str] = []  # Paths of what may be state, but is not captured.

    def __call__(self, value: object, path: str) -> Any:
        if isinstance(value, enum.Enum):
            return {"$enum": value.name}
        if isinstance(value, np.generic):
            return {"$scalar": np.asarray(value)} if value.dtype.kind in "biuf" else _SKIP
        if isinstance(value, str) and holds_secret(value):
            return _SKIP  # The constructor receives it again.
        if isinstance(value, _PLAIN):
            return value
        if isinstance(value, complex):
            return {"$complex": [value.real, value.imag]}
        if id(value) in self.paths:
            return {"$same": self.paths[id(value)]}
        if is_constant(value):
            return _SKIP
        known = len(self.paths)
        self.paths[id(value)] = path
        captured = self._object(value, path)
        if captured is _SKIP:
            for key in list(self.paths)[known:]:  # Neither it nor its contents will be restored.
                del self.paths[key]
        else:
            self.kept.append(value)
        return captured

    def _object(self, value: object, path: str) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value, path)
        if isinstance(value, np.ndarray):
            return {"$array": value} if value.dtype.kind in "biuf" else _SKIP
        if isinstance(value, torch.Generator):
            return {"$generator": value.get_state(), "device": value.device.type}
        if isinstance(value, random.Random):
            return {"$random": value.getstate()}
        if isinstance(value, np.random.Generator):
            return {"$numpy": value.bit_generator.state}
        if isinstance(value, np.random.RandomState):
            return {"$numpy_legacy": value.get_state()}
        if isinstance(value, nn.Module):
            attributes = attribute_state(value, self.constructed)
            return {"$module": value.state_dict(), "attributes": attributes}
        if isinstance(value, torch.optim.Optimizer):
            held = held_names(value, self.paths)
            return {"$state": value.state_dict(), "held": held, "fields": self.fields(value, path)}
        if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
            return {"$state": value.state_dict()}
        if isinstance(value, Batch):
            fields = {name: self(value[name], f"{path}.{name}") for name in value}
            return {"$batch": {k: v for k, v in fields.items() if v is not _SKIP}}
        if isinstance(value, dict):
            keys = [self(key, f"{path} key {i}") for i, key in enumerate(value)]
            if any(key is _SKIP for key in keys):
                return _SKIP
            items = [self._keep(item, f"{path}[{key!r}]") for key, item in value.items()]
            return {"$items": [list(pair) for pair in zip(keys, items, strict=True)]}
        for kind, sequence in SEQUENCES.items():
            if isinstance(value, sequence):
                items = [self._keep(item, f"{path}[{i}]") for i, item in enumerate(value)]
                return {"$sequence": items, "kind": kind, "maxlen": getattr(value, "maxlen", None)}
        return self._fields(value, path)

    def _tensor(self, value: Tensor, path: str) -> Any:
        if value.layout is torch.sparse_coo:
            value = value.coalesce()
            return {"$sparse": [value.indices(), value.values(), list(value.shape)]}
        if value.layout is not torch.strided:
            return _SKIP
        # Views share memory: restored separately, they would stop changing together.
        owner, region = self.memory.setdefault(memory(value), (path, _region(value)))
        shares = owner if owner != path and value.numel() else None
        place: dict[str, Any] = {"shares": shares, "alias": region == _region(value)}
        if value.device.type != "cpu":
            place["device"] = str(value.device)
        elif self.constructed is not None and value in self.constructed:
            place["constructed"] = True
        if not value.requires_grad:
            return {"$tensor": value, **place}
        return {"$leaf": value, **place, "parameter": isinstance(value, nn.Parameter)}

    def _fields(self, value: object, path: str) -> Any:
        """An object of a user's class, by its fields; loggers, locks and files are tools, not state."""
        kind = type(value)
        if _is_pythons_own(kind) and kind.__name__ not in _BARE_OBJECTS:
            if not callable(value) and not isinstance(value, logging.Logger):
                self.left_out.append(path)
            return _SKIP
        names = list(getattr(value, "__dict__", ()))
        for base in kind.__mro__:
            slots = vars(base).get("__slots__", ())
            names += [slots] if isinstance(slots, str) else list(slots)
        fields = {
            name: self(getattr(value, name), f"{path}.{name}")
            for name in dict.fromkeys(names)
            if hasattr(value, name) and name not in ("__dict__", "__weakref__")
        }
        if not fields and not hasattr(value, "__dict__"):
            self.left_out.append(path)
        fields = {name: field for name, field in fields.items() if field is not _SKIP}
        return {"$object": fields} if fields else _SKIP

    def fields(self, optimizer: torch.optim.Optimizer, path: str) -> dict[str, Any]:
        """The attributes of a user-defined optimiser that torch's own class does not have."""
        if type(optimizer).__module__.startswith("torch."):
            return {}
        return {
            name: captured
            for name, value in vars(optimizer).items()
            if name not in _of_optimizers()
            and (captured := self(value, f"{path}.{name}")) is not _SKIP
        }

    def _keep(self, item: object, path: str) -> Any:
        captured = self(item, path)
        return {"$skip": True} if captured is _SKIP else captured


class Look(_Capture):
    """Visits the objects only: calls no `state_dict`, which may be slow."""

    @classmethod
    def beside(cls, module: nn.Module) -> Self:
        """A look that treats what the module holds as known."""
        return cls(registered(module))

    def _object(self, value: object, path: str) -> Any:
        if isinstance(value, nn.Module):
            self.paths |= {id(known): name for name, known in registered(value).items()}
            return {"$module": {n: self(x, n) for n, x in _attributes(value).items()}}
        if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
            return {"$state": {}}
        return super()._object(value, path)


class _Skip:
    """Marks what is not state, or cannot be described."""


_SKIP = _Skip()


def registered(module: nn.Module) -> dict[str, Any]:
    """Modules, parameters and buffers that torch finds by name; attributes only refer to them."""
    found: dict[str, Any] = {}
    if stated_traits(module).observes:
        found |= module.parts_referred_to()  # type: ignore[operator]
    found |= dict(module.named_modules(remove_duplicate=False))
    found |= dict(module.named_parameters(remove_duplicate=False))
    return found | dict(module.named_buffers(remove_duplicate=False))


def is_constant(value: object) -> bool:
    """Whether a value is not state: code, a constant, or an object whose class says so by `antelope_state`.

    The run itself saves its replay, log and strategy context; a spec never changes.
    """
    if isinstance(value, _CONSTANTS) or inspect.isroutine(value) or inspect.ismodule(value):
        return True
    return getattr(type(value), "antelope_state", None) is False


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Attributes of a module and its submodules, without torch's own, by their path."""
    return {
        f"{prefix}.{name}" if prefix else name: value
        for prefix, submodule in module.named_modules()
        for name, value in vars(submodule).items()
        if name not in OWN
    }


def _is_pythons_own(kind: type) -> bool:
    """Whether a class comes from the standard library, which a user's `queue.py` does not."""
    module = getattr(kind, "__module__", "")  # Some classes written in C have none.
    file = getattr(sys.modules.get(module), "__file__", None)
    name = module.split(".")[0]
    if file is None:
        return name in sys.stdlib_module_names
    return Path(file).is_relative_to(Path(os.__file__).parent) and "site-packages" not in file


def memory(tensor: Tensor) -> int:
    """The address of a tensor's storage, which views share."""
    return tensor.untyped_storage().data_ptr()


def _region(tensor: Tensor) -> tuple[Any, ...]:
    """Which part of its memory a tensor is."""
    return (tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)


@functools.cache
def _of_optimizers() -> frozenset[str]:
    """The attributes of torch's optimisers; constructing one imports dynamo, which takes seconds."""
    return frozenset({*vars(torch.optim.SGD([torch.zeros(1)])), "step", "_opt_called"})

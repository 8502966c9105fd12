"""What a user's module holds beside its weights: counters, optimisers, generators, buffers.

`state_dict` knows parameters and registered buffers only. A run that continues exactly also needs
`self.optim`, `self.steps`, `self.epsilon`, `self.memory`, ... wherever they sit, which parameters
are frozen and which parts are in eval mode. Everything becomes nested dicts and lists of tensors and
scalars; nothing is pickled. Putting it back changes the objects that the model's constructor made.
"""

from __future__ import annotations

import collections
import copy
import enum
import inspect
import logging
import os
import random
import sys
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from ...agents.continual.context import Context
from ...agents.policy.raw_observations import RawAct
from ...agents.traits import Traits
from ...replay import Batch, CheckpointError, Replay, Space, Spec
from ...replay.devices import current_move, destination, is_same
from ..learn.parameters import held_names, hold
from .log import Log

_OWN = frozenset(vars(nn.Module()))  # torch's own bookkeeping.
_OPTIMIZERS = frozenset({*vars(torch.optim.SGD([torch.zeros(1)])), "step", "_opt_called"})
_PLAIN = (bool, int, float, str, bytes, type(None))
# Not the model's state: constants, and what the run saves itself.
_NOT_STATE = (
    *(type, torch.device, torch.dtype, np.dtype),
    *(Space, Spec, Replay, Log, Context, Traits, RawAct),
)
_BARE_OBJECTS = ("SimpleNamespace", "Namespace")
_SEQUENCES = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": collections.deque,
}


class Constructed:
    """The tensors that an object's constructor made: told apart from those made while learning.

    On a CPU all tensors look alike. If the run is continued on an accelerator, what `learn` made goes
    there, while a tensor of the constructor's is where the constructor puts it.

    Args:
        value: Just constructed: a module, or a strategy.
        beside: A module that is saved itself, as of `object_state`.
    """

    def __init__(self, value: Any, *, beside: nn.Module | None = None):
        look = Look({} if beside is None else _registered(beside))
        look(value, "object")
        # Weak references: an id may be another tensor's when its own is gone.
        self._known = {id(x): weakref.ref(x) for x in look.kept if isinstance(x, Tensor)}

    def __contains__(self, value: Any) -> bool:
        reference = self._known.get(id(value))
        return reference is not None and reference() is value


def attribute_state(module: nn.Module, constructed: Constructed | None = None) -> dict[str, Any]:
    """All that `module.state_dict()` leaves out.

    Args:
        constructed: The tensors that its constructor made.
    """
    capture = _Capture(_registered(module), constructed)
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


def load_attribute_state(module: nn.Module, state: dict[str, Any]) -> None:
    """Put back what `attribute_state` found.

    Raises:
        CheckpointError: If an object that has to be continued is not there.
    """
    restore = _Restore(_registered(module))
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


def fill_empty_buffers(
    module: nn.Module, saved: Mapping[str, Tensor], places: Mapping[str, str] | None
) -> None:
    """Give buffers registered as None, and filled while the module learnt, their place.

    Args:
        saved: What they held, by name; names of other buffers are left alone.
        places: Where they were, those that were not on the CPU; None: not known, and where the
            module's parameters are now.
    """
    own = next((str(p.device) for p in module.parameters()), "cpu")
    for prefix, part in module.named_modules():
        for key, buffer in part._buffers.items():
            path = f"{prefix}.{key}" if prefix else key
            if buffer is None and path in saved:
                where = (
                    torch.device(own) if places is None else destination(places.get(path, "cpu"))
                )
                part._buffers[key] = torch.empty_like(saved[path], device=where)


def load_in_place(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into the module's tensors: optimisers hold these, recurrent layers refer to them."""
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(False)
    try:
        module.load_state_dict(weights)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)


def load_part(part: Any, state: Any) -> None:
    """Put back what `part.state_dict()` gave; an optimiser's tensors lie in memory as its parameters do.

    A checkpoint holds them row by row. Optimisers of one kernel take it that they lie as the parameter
    does, channels last for example, and would else pair each weight with another one's average.
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


def add_copies(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Make again what a module copied of itself while it learnt, such as a teacher: `deepcopy(net)`.

    Args:
        weights: A state of the module, which has entries for these parts.
    """
    parts = dict(module.named_modules())
    here = module.state_dict().keys()
    for path in dict.fromkeys(_first_not_in(parts, name) for name in weights if name not in here):
        inside = {n[len(path) + 1 :]: w for n, w in weights.items() if n.startswith(f"{path}.")}
        if inside and (copied := _copy_of_like(parts.values(), inside)) is not None:
            owner, _, name = path.rpartition(".")
            setattr(parts[owner], name, copied)


def _first_not_in(parts: Mapping[str, nn.Module], name: str) -> str:
    """`teacher` of `teacher.0.weight`, where no part is called so."""
    pieces = name.split(".")
    paths = (".".join(pieces[: i + 1]) for i in range(len(pieces)))
    return next(path for path in paths if path not in parts)


def _copy_of_like(parts: Iterable[Any], weights: Mapping[str, Tensor]) -> nn.Module | None:
    """A copy of the part that has weights of these names and shapes; None where they differ otherwise."""
    shapes = {name: weight.shape for name, weight in weights.items()}
    like = []
    for part in parts:
        if isinstance(part, nn.Module):
            own = {name: getattr(w, "shape", None) for name, w in part.state_dict().items()}
            if own == shapes:
                like.append(part)
    if len({repr(part) for part in like}) != 1:  # Two may have the same layers, and another ReLU.
        return None
    return copy.deepcopy(like[0])


def object_state(
    value: Any,
    *,
    whole: bool = False,
    beside: nn.Module | None = None,
    constructed: Constructed | None = None,
) -> Any:
    """The state of any object that takes part in training: an augmentation, an environment.

    Args:
        beside: A module that is saved itself: what the object holds of it is only referred to.
        whole: Give None where something that may matter cannot be described, such as a simulator
            written in C.
        constructed: The tensors that its constructor made.
    """
    capture = _Capture({} if beside is None else _registered(beside), constructed)
    captured = capture(value, "object")
    return None if captured is _SKIP or (whole and capture.left_out) else captured


def load_object_state(value: Any, state: Any, *, beside: nn.Module | None = None) -> None:
    """Put back what `object_state` found, in place."""
    if state is not None:
        _Restore({} if beside is None else _registered(beside))(value, state, "object")


def optimizer_fields(optimizer: torch.optim.Optimizer, *, beside: nn.Module) -> dict[str, Any]:
    """What an optimiser of the user's class keeps in attributes, which its `state_dict` leaves out.

    Args:
        beside: The module whose parameters it steps.
    """
    return _Capture(_registered(beside)).fields(optimizer, "optimizer")


def load_optimizer_fields(
    optimizer: torch.optim.Optimizer, fields: Mapping[str, Any], *, beside: nn.Module
) -> None:
    """Put back what `optimizer_fields` found."""
    _Restore(_registered(beside)).fields(optimizer, fields, "optimizer")


def _registered(module: nn.Module) -> dict[str, Any]:
    """What torch itself finds by name: an attribute that is one of these is only a reference."""
    found: dict[str, Any] = getattr(module, "parts_referred_to", dict)()
    found |= dict(module.named_modules(remove_duplicate=False))
    found |= dict(module.named_parameters(remove_duplicate=False))
    return found | dict(module.named_buffers(remove_duplicate=False))


def _attributes(module: nn.Module) -> dict[str, Any]:
    return {
        f"{prefix}.{name}" if prefix else name: value
        for prefix, submodule in module.named_modules()
        for name, value in vars(submodule).items()
        if name not in _OWN
    }


class _Skip:
    """Something that is no state, or cannot be described."""


_SKIP = _Skip()


class _Capture:
    """Describes values; one met again, or registered, by a reference to its first path."""

    def __init__(self, registered: dict[str, Any], constructed: Constructed | None = None):
        self.constructed, self._registered = (
            constructed,
            registered,
        )  # An id needs its object alive.
        self.paths = {id(value): path for path, value in reversed(list(registered.items()))}
        self.memory = {
            _memory(value): (path, _region(value))
            for path, value in registered.items()
            if isinstance(value, Tensor)
        }
        self.left_out: list[str] = []  # Where something is that may be state, and is not kept.
        self.kept: list[Any] = []  # An id is only good as long as its object lives.

    def __call__(self, value: Any, path: str) -> Any:
        if isinstance(value, enum.Enum):
            return {"$enum": value.name}
        if isinstance(value, np.generic):
            return {"$scalar": np.asarray(value)} if value.dtype.kind in "biuf" else _SKIP
        if isinstance(value, _PLAIN):
            return value
        if isinstance(value, complex):
            return {"$complex": [value.real, value.imag]}
        if id(value) in self.paths:
            return {"$same": self.paths[id(value)]}
        if isinstance(value, _NOT_STATE) or inspect.isroutine(value) or inspect.ismodule(value):
            return _SKIP
        known = len(self.paths)
        self.paths[id(value)] = path
        captured = self._object(value, path)
        if captured is _SKIP:
            for key in list(self.paths)[known:]:  # It, and what it holds, will not be restored.
                del self.paths[key]
        else:
            self.kept.append(value)
        return captured

    def _object(self, value: Any, path: str) -> Any:
        if isinstance(value, Tensor) and value.layout is torch.sparse_coo:
            value = value.coalesce()
            return {"$sparse": [value.indices(), value.values(), list(value.shape)]}
        if isinstance(value, Tensor):
            if value.layout is not torch.strided:
                return _SKIP
            owner, region = self.memory.setdefault(_memory(value), (path, _region(value)))
            shares = owner if owner != path and value.numel() else None
            place = {"shares": shares, "alias": region == _region(value)}
            if value.device.type != "cpu":
                place["device"] = str(value.device)
            elif self.constructed is not None and value in self.constructed:
                place["constructed"] = True
            if not value.requires_grad:
                return {"$tensor": value, **place}
            return {"$leaf": value, **place, "parameter": isinstance(value, nn.Parameter)}
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
        for kind, sequence in _SEQUENCES.items():
            if isinstance(value, sequence):
                items = [self._keep(item, f"{path}[{i}]") for i, item in enumerate(value)]
                return {"$sequence": items, "kind": kind, "maxlen": getattr(value, "maxlen", None)}
        return self._fields(value, path)

    def _fields(self, value: Any, path: str) -> Any:
        """An object of a class of the user's, by its fields; loggers, locks and files are tools."""
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
        """The attributes of an optimiser that torch does not know."""
        if type(optimizer).__module__.startswith("torch."):
            return {}
        return {
            name: captured
            for name, value in vars(optimizer).items()
            if name not in _OPTIMIZERS and (captured := self(value, f"{path}.{name}")) is not _SKIP
        }

    def _keep(self, item: Any, path: str) -> Any:
        captured = self(item, path)
        return {"$skip": True} if captured is _SKIP else captured


class Look(_Capture):
    """Only looks at what there is: nothing is asked for its state."""

    @classmethod
    def beside(cls, module: nn.Module) -> Self:
        """One that only refers to what the module holds."""
        return cls(_registered(module))

    def _object(self, value: Any, path: str) -> Any:
        if isinstance(value, nn.Module):
            self.paths |= {id(known): name for name, known in _registered(value).items()}
            return {"$module": {n: self(x, n) for n, x in _attributes(value).items()}}
        if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
            return {"$state": {}}
        return super()._object(value, path)


class _Restore:
    """Values from their descriptions, made of what the model's constructor has made."""

    def __init__(self, registered: dict[str, Any]):
        self.made = dict(registered)
        self.memory = {_memory(v) for v in registered.values() if isinstance(v, Tensor)}

    def __call__(self, current: Any, captured: Any, path: str) -> Any:
        if not isinstance(captured, dict):
            return captured
        kind = next(iter(captured))
        if kind == "$same":
            return self.made[captured[kind]]
        if kind == "$skip":
            return current
        if current is not None:
            self.made[path] = current  # What it holds may refer back to it.
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
            filled = self.made[path] = current if isinstance(current, dict) else {}
            made = {}
            for i, (key_state, item) in enumerate(content):
                key = self(None, key_state, f"{path} key {i}")
                made[key] = self(filled.get(key), item, f"{path}[{key!r}]")
            return _refill(filled, made)
        if kind == "$sequence":
            old_items: list[Any] = []
            if isinstance(current, (list, tuple, set, frozenset, collections.deque)):
                old_items = list(current)
            if whole["kind"] == "list" and not isinstance(current, list):
                current = self.made[path] = []
            items = [
                self(old_items[i] if i < len(old_items) else None, item, f"{path}[{i}]")
                for i, item in enumerate(content)
            ]
            return _refill(current, items, kind=whole["kind"], maxlen=whole["maxlen"])
        if current is None and kind == "$module":
            current = _copy_of_like(list(self.made.values()), content)
        if current is None:
            raise CheckpointError(
                f"The checkpoint holds the state of `{path}`, which does not exist when the model "
                "is built. Create it in __init__, so that it can be continued."
            )
        return self._in_place(current, kind, content, whole, path)

    def fields(self, owner: Any, fields: Mapping[str, Any], path: str) -> None:
        for name, captured in fields.items():
            value = self(getattr(owner, name, None), captured, f"{path}.{name}")
            object.__setattr__(owner, name, value)

    def _tensor(self, current: Any, content: Tensor, whole: dict[str, Any]) -> Tensor:
        owner = self.made.get(whole["shares"])
        if owner is not None and isinstance(current, Tensor) and _memory(current) == _memory(owner):
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
            and _memory(current) not in self.memory
            and not _is_expanded(current)
        ):
            # Optimisers and other attributes may refer to this very tensor.
            current.detach().copy_(content)
            self.memory.add(_memory(current))
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
            load_attribute_state(current, whole["attributes"])
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
    """Restore a generator's state, if it is on the same kind of device; otherwise it starts afresh.

    Args:
        kind: Of the device it was on; None: not recorded (before 0.5.0).
    """
    move = current_move()
    if kind is not None and kind != generator.device.type and move is not None:
        move.restarted.append(f"`{path}`")
        return
    try:
        generator.set_state(state)
    except (RuntimeError, TypeError):  # The states of kinds differ in size.
        if kind is not None or move is None:
            raise
        move.restarted.append(f"`{path}`")


def _is_pythons_own(kind: type) -> bool:
    """Whether a class is of the standard library; a user's `queue.py` is not."""
    module = getattr(kind, "__module__", "")  # Some classes written in C have none.
    file = getattr(sys.modules.get(module), "__file__", None)
    name = module.split(".")[0]
    if file is None:
        return name in sys.stdlib_module_names
    return Path(file).is_relative_to(Path(os.__file__).parent) and "site-packages" not in file


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _region(tensor: Tensor) -> tuple[Any, ...]:
    """Which part of its memory a tensor is."""
    return (tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)


def _is_expanded(tensor: Tensor) -> bool:
    """Whether several elements are one in memory, so that they cannot be written."""
    return tensor.numel() > 1 and 0 in tensor.stride()


def _refill(current: Any, content: Any, *, kind: str = "dict", maxlen: int | None = None) -> Any:
    """`content` in the container that the model made, which others may refer to."""
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
    return content if kind == "dict" else _SEQUENCES[kind](content)

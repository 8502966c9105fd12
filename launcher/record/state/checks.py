"""Checks what a checkpoint says of objects (capture.py) against the objects that are to receive it.

A description may come from anyone. It must be one that capture.py writes; it may not replace what is not
state (a function, a class, a file), hide a method, or add an attribute that no code assigns. Nothing is
changed here: restore.py does that afterwards.
"""

from __future__ import annotations

import collections
import enum
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ....replay import CheckpointError
from ....replay.structure import (
    Foreign,
    anything,
    each,
    in_words,
    is_dict,
    misfit,
    number,
    stream,
    tensor,
    text,
)
from ..validation import ATTRIBUTES, version_words
from .assigned import hides, is_pythons, is_registered, may_appear, own_attribute
from .capture import OWN, SEQUENCES, is_constant, registered
from .optimizer_checks import check_optimizer, check_scheduler

Described = dict[str, Any]  # What capture.py writes of a value that is not plain.
_NUMBERS = (bool, int, float, complex, np.generic)
_TEXTS = (str, bytes)
_CONTAINERS = (dict, list, tuple, set, frozenset, collections.deque)
# Which entries a description of each kind has beside its contents.
_BESIDE: dict[str, tuple[str, ...]] = {
    "$tensor": ("shares", "alias", "device", "constructed"),
    "$leaf": ("shares", "alias", "device", "constructed", "parameter"),
    "$generator": ("device",),
    "$module": ("attributes",),
    "$state": ("held", "fields"),
    "$sequence": ("kind", "maxlen"),
}
_ENOUGH = (
    "$same",
    "$skip",
    "$enum",
    "$scalar",
    "$complex",
    "$array",
    "$sparse",
    "$batch",
    "$items",
)
_KINDS = {*_BESIDE, *_ENOUGH, "$random", "$numpy", "$numpy_legacy", "$object"}


def check_attributes(
    module: nn.Module, state: Mapping[str, Any], *, classes: Iterable[type] = ()
) -> None:
    """Check what `attribute_state` returned against a module that is to receive it.

    Args:
        module: Built by the same constructor.
        state: Has the structure that `validation.check_structure` wants.
        classes: Classes, beside those of the module's parts, whose code may assign attributes.

    Raises:
        CheckpointError: Naming the attribute, and what is wrong with it.
    """
    parts = dict(module.named_modules())
    check = _Check(registered(module), [*{type(part) for part in parts.values()}, *classes])
    for path, captured in state["values"].items():
        owner_name, _, name = path.rpartition(".")
        owner = parts.get(owner_name)
        if owner is None:
            raise CheckpointError(
                f"The checkpoint holds `{path[:100]}`, but {type(module).__name__} has no part "
                f"`{owner_name[:100]}`."
            )
        check.attribute(owner, name, captured, path)
    buffers = dict(module.named_buffers())
    for name, saved in state["buffers"].items():
        own = buffers.get(name)
        if own is not None and own.shape != saved.shape:
            misfit(name, saved, f"a tensor of shape {list(own.shape)}")


def check_object(
    value: Foreign, state: Foreign, *, beside: nn.Module | None = None, classes: Iterable[type] = ()
) -> None:
    """Check what `object_state` returned against an object that is to receive it.

    Args:
        beside: As for `object_state`.
        classes: Further classes whose code may assign attributes of the object.

    Raises:
        CheckpointError: Naming what is wrong.
    """
    if state is not None:
        _Check({} if beside is None else registered(beside), classes)(value, state, "object")


def check_fields(optimizer: Optimizer, fields: Foreign, path: str, *, beside: nn.Module) -> None:
    """Check what `optimizer_fields` returned against an optimiser.

    Raises:
        CheckpointError: Naming what is wrong.
    """
    _Check(registered(beside), ()).fields(optimizer, fields, path)


class _Check:
    """Compares descriptions with values, as `_Restore` would put them back.

    Args:
        known: Modules, parameters and buffers that are restored by themselves, by name.
        classes: Classes whose code may assign attributes.
    """

    def __init__(self, known: Mapping[str, Any], classes: Iterable[type]):
        self.seen = set(known)
        self.unnamed: list[str] = []  # Beginnings of paths whose rest depends on objects.
        self.classes = list(classes)

        self._of_kind: dict[str, Callable[[Foreign, Foreign, Described, str], None]] = {
            "$tensor": self._tensor,
            "$leaf": self._tensor,
            "$array": self._array,
            "$scalar": self._scalar,
            "$sparse": self._sparse,
            "$complex": self._complex,
            "$enum": self._enum,
            "$batch": self._batch,
            "$items": self._items,
            "$sequence": self._sequence,
            "$generator": self._generator,
            "$random": self._random,
            "$numpy": self._numpy,
            "$numpy_legacy": self._numpy_legacy,
            "$module": self._module,
            "$state": self._state,
            "$object": self._object,
        }

    def attribute(self, owner: object, name: str, captured: Foreign, path: str) -> None:
        """Check an attribute: one that the object has, or that code may have given it since."""
        there = own_attribute(owner, name)
        own = isinstance(owner, nn.Module) and (name in OWN or is_registered(owner, name))
        if own or (not there and (is_pythons(name) or hides(owner, name))):
            raise CheckpointError(
                f"The checkpoint would replace `{path[:100]}`, which is not an attribute that a run saves."
            )
        if not there and not may_appear(owner, name, self.classes):
            raise CheckpointError(
                f"The checkpoint holds an attribute `{path[:100]}`, which {type(owner).__name__} does not "
                "have, and which no code of the model assigns."
            )
        self(there[0] if there else None, captured, path)

    def __call__(self, current: object, captured: Foreign, path: str) -> None:
        if is_constant(current) and captured != {"$skip": True}:
            raise CheckpointError(
                f"The checkpoint would replace `{path[:100]}`, a {type(current).__name__} that is not saved."
            )
        self.seen.add(path)
        if not is_dict(captured):
            if not isinstance(captured, (*_NUMBERS, *_TEXTS, type(None))):
                misfit(path, captured, "what a run saves of it")
            self._may_become(current, None, captured, path)
            return
        kind = next(iter(captured), None)
        if kind not in {"$same", "$skip", *self._of_kind} or captured.keys() - {
            kind,
            *_BESIDE.get(kind, ()),
        }:
            misfit(path, captured, "what a run saves of it")
        content = captured[kind]
        if kind == "$skip":
            return
        if kind == "$same":
            if not isinstance(content, str) or not self._holds(content):
                raise CheckpointError(
                    f"The checkpoint's `{path}` refers to {in_words(content)}, which it does not hold."
                )
            return
        self._may_become(current, kind, None, path)
        self._of_kind[kind](current, content, captured, path)

    def _holds(self, path: str) -> bool:
        return path in self.seen or any(path.startswith(start) for start in self.unnamed)

    def _may_become(self, current: object, kind: str | None, value: Foreign, path: str) -> None:
        """Refuse what this run's value cannot have become while it learnt.

        Args:
            kind: The kind of description; None: a plain value.
        """
        if current is None or (kind is None and value is None):
            return
        words = kind is None and isinstance(value, _TEXTS)
        if (only := _only_kind_of(current)) is not None:
            fits = kind == only
        elif isinstance(current, _TEXTS):
            fits = words
        elif isinstance(current, (*_NUMBERS, Tensor, np.ndarray)):
            fits = not words and kind not in _INTO_AN_OBJECT
        elif isinstance(current, _CONTAINERS):
            fits = kind is not None and kind not in _INTO_AN_OBJECT
        else:
            fits = kind is not None
        if not fits:
            what = in_words(value) if kind is None else f"described as `{kind[1:]}`"
            raise CheckpointError(
                f"The checkpoint's `{path}` is {what}; this run's is a {type(current).__name__}."
            )

    # ------------------------------------------------------------------- a method for each kind

    def _tensor(self, current: Foreign, content: Foreign, whole: Described, path: str) -> None:
        tensor(content, path)
        for key, kinds in (("shares", (str, type(None))), ("alias", (bool,))):
            if not isinstance(whole.get(key), kinds):
                misfit(f"{path}, {key}", whole.get(key), "what a run saves of it")
        if "device" in whole:
            text(whole["device"], f"{path}, device")
        same = not isinstance(current, Tensor) or current.shape == content.shape
        if whole.get("constructed") is True and not same:
            misfit(path, content, f"a tensor of shape {list(current.shape)}")

    def _array(self, current: Foreign, content: Foreign, whole: Described, path: str) -> None:
        if not isinstance(content, np.ndarray) or content.dtype.kind not in "biuf":
            misfit(path, content, "an array of numbers")

    def _scalar(self, current: Foreign, content: Foreign, whole: Described, path: str) -> None:
        self._array(current, content, whole, path)
        if content.shape != ():
            misfit(path, content, "a single number")

    def _sparse(self, current: Foreign, content: Foreign, whole: Described, path: str) -> None:
        each(anything, 3)(content, path)
        tensor(content[0], path)
        tensor(content[1], path)

    def _complex(self, current: Foreign, content: Foreign, whole: Described, path: str) -> None:
        each(number, 2)(content, path)

    def _enum(self, current: Foreign, content: Foreign, whole: Described, path: str) -> None:
        if isinstance(current, enum.Enum) and content not in type(current).__members__:
            misfit(path, content, f"one of {', '.join(type(current).__members__)}")

    def _batch(self, current: Foreign, content: Foreign, whole: Described, path: str) -> None:
        for name, item in _dict(content, path).items():
            self(None, item, f"{path}.{name}")

    def _items(self, current: Foreign, content: Foreign, whole: Described, path: str) -> None:
        filled = current if is_dict(current) else {}
        each(each(anything, 2))(content, path)
        for i, (described, item) in enumerate(content):
            self(None, described, f"{path} key {i}")
            try:
                key = _key(described)
                hash(key)
            except (TypeError, ValueError, KeyError):
                self.unnamed.append(f"{path}[")
                self(None, item, f"{path}[key {i}]")
            else:
                self(filled.get(key), item, f"{path}[{key!r}]")

    def _sequence(self, current: Foreign, content: Foreign, whole: Described, path: str) -> None:
        kind, longest = whole.get("kind"), whole.get("maxlen")
        if kind not in SEQUENCES or not (
            longest is None or (type(longest) is int and longest >= 0)
        ):
            misfit(path, kind, "a kind of sequence")
        each(anything)(content, path)
        ordered = isinstance(current, (list, tuple, collections.deque))
        old = list(current) if ordered else []
        for i, item in enumerate(content):
            self(old[i] if i < len(old) else None, item, f"{path}[{i}]")

    def _generator(self, current: Foreign, content: Foreign, whole: Described, path: str) -> None:
        stream(content, path)

    def _random(self, current: Foreign, content: Foreign, whole: Described, path: str) -> None:
        version_words(content, path)

    def _numpy(self, current: Foreign, content: Foreign, whole: Described, path: str) -> None:
        _dict(content, path)
        if isinstance(current, np.random.Generator):
            own = current.bit_generator.state
            if content.keys() != own.keys() or content["bit_generator"] != own["bit_generator"]:
                misfit(path, content, f"the state of a {own['bit_generator']}")

    def _numpy_legacy(
        self, current: Foreign, content: Foreign, whole: Described, path: str
    ) -> None:
        each(anything, 5)(content, path)

    def _module(self, current: Foreign, content: Foreign, whole: Described, path: str) -> None:
        weights, attributes = _dict(content, path), whole.get("attributes")
        ATTRIBUTES(attributes, f"{path}, attributes")
        if isinstance(current, nn.Module):
            own = current.state_dict()
            for name, weight in weights.items():
                there = own.get(name)
                if isinstance(there, Tensor) and (
                    not isinstance(weight, Tensor) or weight.shape != there.shape
                ):
                    misfit(f"{path}.{name}", weight, f"a tensor of shape {list(there.shape)}")
            check_attributes(current, attributes, classes=self.classes)  # type: ignore[arg-type]

    def _state(self, current: Foreign, content: Foreign, whole: Described, path: str) -> None:
        if isinstance(current, Optimizer):
            check_optimizer(current, content, path)
            self.fields(current, whole.get("fields", {}), path)
        elif isinstance(current, torch.optim.lr_scheduler.LRScheduler):
            check_scheduler(current, content, path)

    def _object(self, current: Foreign, content: Foreign, whole: Described, path: str) -> None:
        if current is None:
            _dict(content, path)
        else:
            self.fields(current, content, path)

    def fields(self, owner: object, fields: Foreign, path: str) -> None:
        """Check an object's fields."""
        for name, captured in _dict(fields, path).items():
            self.attribute(owner, name, captured, f"{path}.{name}")


# Kinds that are restored into an object that exists already.
_INTO_AN_OBJECT = frozenset(
    {"$generator", "$random", "$numpy", "$numpy_legacy", "$module", "$state", "$object", "$enum"}
)
_ONLY_KINDS: tuple[tuple[type, str], ...] = (
    (enum.Enum, "$enum"),
    (torch.Generator, "$generator"),
    (random.Random, "$random"),
    (np.random.Generator, "$numpy"),
    (np.random.RandomState, "$numpy_legacy"),
    (nn.Module, "$module"),
    (Optimizer, "$state"),
)


def _only_kind_of(value: object) -> str | None:
    """The only kind of description that capture.py writes for an object of this type; None: several."""
    return next((kind for found, kind in _ONLY_KINDS if isinstance(value, found)), None)


def _key(described: Foreign) -> Any:
    """The key of a dict that was described.

    Raises:
        TypeError, ValueError, KeyError: If it takes more than its description.
    """
    if not is_dict(described):
        return described
    ((kind, content), *_) = described.items()
    if kind == "$scalar":
        return content[()]
    if kind == "$complex":
        return complex(*content)
    if kind != "$sequence":
        raise ValueError(kind)
    return SEQUENCES[described["kind"]](map(_key, content))


def _dict(value: Foreign, path: str) -> dict[str, Any]:
    if not is_dict(value) or not all(isinstance(key, str) for key in value):
        misfit(path, value, "a dict")
    return value

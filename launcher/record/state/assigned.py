"""Which attributes code assigns: only those may a checkpoint add to an object.

A model may create an attribute while it learns, so a checkpoint may hold one that a newly constructed model
has not. Its name then occurs in the code of the model: nothing else can have created it.
"""

from __future__ import annotations

import dis
import functools
import inspect
import sys
from collections.abc import Iterable, Iterator
from operator import attrgetter
from types import CodeType
from typing import Any

from torch import nn

# Code that uses one of these assigns names that cannot be read from it.
_DYNAMIC = frozenset({"setattr", "vars", "__dict__", "__setattr__"})
_BASES = (object, nn.Module)


def may_appear(owner: object, name: str, beside: Iterable[type]) -> bool:
    """Whether code of these classes, or of the modules that they are defined in, assigns the attribute.

    Args:
        owner: The object that would have the attribute.
        beside: Classes whose methods may assign to it too: of the modules of a model, of strategies.
    """
    kinds = [type(owner), *beside]
    if any(name in _assigned(kind) for kind in kinds):
        return True
    if any(_assigned(kind) & _DYNAMIC for kind in kinds):
        return True
    modules = {kind.__module__ for kind in kinds} | {"__main__"}
    return any(name in _assigned_in(module) for module in modules if not _installed(module))


def hides(owner: object, name: str) -> bool:
    """Whether an attribute of this name would take the place of a method or a property of its class."""
    found = inspect.getattr_static(type(owner), name, None)
    if found is None or isinstance(found, functools.cached_property):
        return False
    if inspect.ismemberdescriptor(found):  # A slot: where the attribute itself is stored.
        return False
    return callable(found) or hasattr(type(found), "__get__") or hasattr(type(found), "__set__")


def own_attribute(owner: object, name: str) -> tuple[Any, ...]:
    """The value of an attribute that the object itself has, alone in a tuple; empty if it has none."""
    own = vars(owner) if hasattr(owner, "__dict__") else {}
    if name in own:
        return (own[name],)
    if inspect.ismemberdescriptor(inspect.getattr_static(type(owner), name, None)):
        return (attrgetter(name)(owner),) if hasattr(owner, name) else ()
    return ()


def is_registered(module: nn.Module, name: str) -> bool:
    """Whether torch itself saves it: a parameter, a buffer, or a part that is not None."""
    held = (module._parameters, module._buffers, module._modules)
    return any(entries.get(name) is not None for entries in held)


def is_pythons(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _installed(module: str) -> bool:
    return module.split(".")[0] in ("torch", "antelope", "builtins", "numpy", "gymnasium")


@functools.cache
def _assigned(kind: type) -> frozenset[str]:
    """Names that the methods of a class and of its bases assign, and marks of `_DYNAMIC` code."""
    found: set[str] = set()
    for base in kind.__mro__:
        if base not in _BASES:
            for value in vars(base).values():
                found |= _assigned_by(value)
    return frozenset(found)


def _assigned_in(module: str) -> set[str]:
    """Names that the functions and classes of a module assign."""
    found: set[str] = set()
    for value in (
        list(vars(sys.modules.get(module, object())).values()) if module in sys.modules else []
    ):
        if not (inspect.isfunction(value) or inspect.isclass(value)) or value.__module__ != module:
            continue
        parts = vars(value).values() if isinstance(value, type) else [value]
        for part in parts:
            found |= _assigned_by(part)
    return found - _DYNAMIC


def _assigned_by(value: object) -> set[str]:
    found: set[str] = set()
    for code in _codes(value):
        for step in dis.get_instructions(code):
            dynamic = step.opname.startswith("LOAD_") and step.argval in _DYNAMIC
            if dynamic or step.opname in ("STORE_ATTR", "DELETE_ATTR"):
                found.add(step.argval)
    return found


def _codes(value: object) -> Iterator[CodeType]:
    """The code of a function, a method, or a property, and of the functions inside it."""
    if isinstance(value, property):
        parts: list[Any] = [value.fget, value.fset]
    elif isinstance(value, functools.cached_property):
        parts = [value.func]
    else:
        parts = [value.__func__ if isinstance(value, (classmethod, staticmethod)) else value]
    for part in parts:
        function = inspect.unwrap(part) if callable(part) else part
        if inspect.isfunction(function):
            yield from _nested(function.__code__)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)

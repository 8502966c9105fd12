"""How Python objects are named in `config.yaml`."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from typing import Any


def name_of(value: Any) -> str:
    """The name of a Python object in the configuration, the same in every process.

    Classes and functions of a file in the working directory are `file.py:Name`, others
    `module.Name`; for an instance, that of its class.
    """
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        if isinstance(value, (list, tuple)):
            if len(value) > 8 or any(isinstance(item, (bool, int, float, str)) for item in value):
                return f"{type(value).__name__} of {len(value)}"
            return f"[{', '.join(name_of(item) for item in value)}]"
        nested = getattr(value, "is_nested", False)  # Nested tensors raise when asked for a shape.
        shape = None if nested else getattr(value, "shape", None)
        suffix = f" {'x'.join(map(str, shape))}" if isinstance(shape, tuple) else ""
        if isinstance(value, functools.partial):
            return f"partial of {name_of(value.func)}"
        return f"instance of {name_of(type(value))}{suffix}"
    module, name = value.__module__ or "", value.__qualname__
    try:
        file = Path(inspect.getsourcefile(value) or "")
    except (TypeError, OSError):  # Built in, or typed into a console or a notebook.
        file = Path()
    if file.suffix == ".py" and file.resolve().parent == Path.cwd():
        return f"{file.name}:{name}"
    return f"{module}.{name}"


def short_name(target: object) -> str:
    """`SGD` of the class, `CartPole-v1` of what makes it; for an object, how it prints."""
    return str(getattr(target, "__name__", target))


def class_name(value: object) -> str:
    """`SGD` of the class and of its instances; a function's own name."""
    return str(getattr(value, "__name__", type(value).__name__))


def canonical_name(name: str, item: object) -> str:
    """The one name of a class, however it was written; other objects keep the name they were found by."""
    return name_of(item) if inspect.isclass(item) or inspect.isroutine(item) else name


def makes_objects(value: object) -> bool:
    """Whether a value is called to get the object (a class, a function), or is the object."""
    return (
        inspect.isclass(value) or inspect.isroutine(value) or isinstance(value, functools.partial)
    )

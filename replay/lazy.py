"""Packages whose names are imported when they are first used: `ml --help` must not pay for torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, home: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__`: `__getattr__ = lazily(__name__, {"Replay": "replay"})`.

    Args:
        package: The package's name.
        home: The module, relative to the package, that defines each name.
    """

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f".{home[name]}", package), name)
        setattr(sys.modules[package], name, value)  # From now on it is found without this function.
        return value

    return get

"""Published agents, one per file. `NAMES` is the registry: what `model=` (or `agent=`) can name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .ac2agent import AC2Agent
    from .random import Random

NAMES = {"model": ("AC2Agent", "Random")}

_HOME = {"AC2Agent": "ac2agent", "Random": "random"}

__all__ = ["AC2Agent", "Random"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value

"""What data is: `Batch`, `Spec`, storage, samplers, and the `Replay` that `learn` is given.

Names are imported when first used, so that errors can be raised without paying for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import CheckpointError, ConfigError, DataError, Diverged

if TYPE_CHECKING:
    from .batch import Batch
    from .replay import Replay
    from .samplers import Epochs, Uniform
    from .spec import Space, Spec
    from .storage import LazyColumn, Table
    from .transform import Pixels, Standardize
    from .transitions import Transitions

_HOME = {
    "Batch": "batch",
    "Replay": "replay",
    "Epochs": "samplers",
    "Uniform": "samplers",
    "Space": "spec",
    "Spec": "spec",
    "LazyColumn": "storage",
    "Table": "storage",
    "Standardize": "transform",
    "Pixels": "transform",
    "Transitions": "transitions",
}

__all__ = [
    "Batch",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Diverged",
    "Epochs",
    "LazyColumn",
    "Pixels",
    "Replay",
    "Space",
    "Spec",
    "Standardize",
    "Table",
    "Transitions",
    "Uniform",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value

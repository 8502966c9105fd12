"""Data: `Batch`, `Spec`, storage, samplers, and the `Replay` that `learn` receives.

Names are imported when first used, so that errors can be raised without importing torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import (
    CheckpointError,
    ConfigError,
    DataError,
    Diverged,
    DownloadError,
    NotSaved,
)
from .lazy import lazily

if TYPE_CHECKING:
    from .batch import Batch
    from .mapped import Mapped
    from .memory import Memory
    from .normalizer import Normalizer
    from .ragged import Ragged
    from .replay import Replay
    from .samplers import Epochs, Prioritized, Uniform
    from .scale import Scale
    from .spec import Space, Spec
    from .storage import LazyColumn, Table
    from .sumtree import SumTree
    from .transform import Observations, Standardize
    from .transitions import Transitions

_HOME = {
    "Batch": "batch",
    "Replay": "replay",
    "Epochs": "samplers",
    "Prioritized": "samplers",
    "Uniform": "samplers",
    "Scale": "scale",
    "SumTree": "sumtree",
    "Mapped": "mapped",
    "Memory": "memory",
    "Normalizer": "normalizer",
    "Ragged": "ragged",
    "Space": "spec",
    "Spec": "spec",
    "LazyColumn": "storage",
    "Table": "storage",
    "Standardize": "transform",
    "Observations": "transform",
    "Transitions": "transitions",
}

__all__ = [
    "Batch",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Diverged",
    "DownloadError",
    "Epochs",
    "LazyColumn",
    "Mapped",
    "Memory",
    "Normalizer",
    "NotSaved",
    "Observations",
    "Prioritized",
    "Ragged",
    "Replay",
    "Scale",
    "Space",
    "Spec",
    "Standardize",
    "SumTree",
    "Table",
    "Transitions",
    "Uniform",
]


__getattr__ = lazily(__name__, _HOME)

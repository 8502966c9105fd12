"""The rows that `subset=` chooses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...envs.arrays import Arrays, take_classes


def of_classes(arrays: Arrays, arguments: Mapping[str, Any]) -> Arrays:
    """The rows of the classes that `subset=` chooses; all rows without it."""
    subset = arguments.get("subset")
    return arrays if subset is None else take_classes(arrays, list(subset))

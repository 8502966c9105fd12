"""`subset=`: the rows of the classes that it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...envs.arrays import Arrays, take_classes


def choose_subset(arrays: Arrays, arguments: Mapping[str, Any]) -> Arrays:
    """The rows of the classes that `subset=` names; all rows without it."""
    subset = arguments.get("subset")
    return arrays if subset is None else take_classes(arrays, list(subset))

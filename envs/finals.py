"""Logs the fields of `info` at the ends of episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..replay.field_names import IN

# Columns of the logs that a field must not be confused with: the field is called `info/loss`.
_LOGGED = {"return", "return_stddev", "episode_length", "loss", "lr", "mode", "step", "epoch"}


class Finals:
    """The `info` of the last steps of episodes: fields that are single numbers."""

    def __init__(self, values: Mapping[str, Sequence[float]] | None = None):
        self.values = {name: list(kept) for name, kept in (values or {}).items()}

    def add(self, rows: Mapping[str, np.ndarray], which: Any) -> None:
        """Add rows `{name: [N, ...]}` of the copies `which`: their numbers, or bool `[N]`."""
        for name, array in rows.items():
            # In float64: float32 counts above 2**24 would be rounded in the mean.
            if array.ndim == 1:
                self.values.setdefault(name, []).extend(array[which].astype(np.float64).tolist())

    def take(self) -> dict[str, float]:
        """The mean of each field since the last call, by its name in the logs."""
        values, self.values = self.values, {}
        return {metric(name): float(np.mean(kept)) for name, kept in values.items() if kept}


def metric(name: str) -> str:
    """The name of a field in the logs: its own, unless the logs have a column of that name.

    >>> metric("success"), metric("loss")
    ('success', 'info/loss')
    """
    name = name.replace(IN, "/")
    return f"info/{name}" if name in _LOGGED else name

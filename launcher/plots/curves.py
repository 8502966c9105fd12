"""A run's own learning curves, drawn when it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def draw_run(path: Path, history: list[dict[str, Any]], *, matrix: list[list[float]]) -> None:
    print("todo")

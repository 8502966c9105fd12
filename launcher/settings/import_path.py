"""Folders on Python's path from which files of the user's, and their neighbours, are imported."""

from __future__ import annotations

import sys
from pathlib import Path

# What was put there, to be taken away when the run has ended.
added_to_path: set[str] = set()


def add_to_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
        added_to_path.add(str(folder))

"""Folders added to Python's path, to import the user's files and their neighbours."""

from __future__ import annotations

import sys
from pathlib import Path

# Removed when the run has ended: later imports of the process must not find these files.
added_to_path: set[str] = set()


def add_to_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
        added_to_path.add(str(folder))

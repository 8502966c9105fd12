"""Folders added to Python's path, to import the user's files and their neighbours."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

# Removed when the run has ended: later imports of the process must not find these files.
added_to_path: set[str] = set()


def file_of(module: ModuleType) -> str | None:
    """The file of a module; None for built-in ones, namespaces and notebooks."""
    return getattr(module, "__file__", None)


def add_to_path(folder: Path) -> None:
    """Put a folder first on Python's path, unless it is on it."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
        added_to_path.add(str(folder))

"""A run directory as ranks other than 0 see it: they read what is there, and write nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .directory import RunDirectory


class ReadOnlyDirectory(RunDirectory):
    """The directory that rank 0 writes to.

    Args:
        path: The run directory, absolute; all ranks must be able to read it.
        resume: Whether the run there is continued.
    """

    lost, taken_by = False, None

    def __init__(self, path: Path, *, resume: bool):
        self.path, self.resume, self.started = path, resume, False

    def reopen(self) -> None:
        """Nothing to claim."""

    def start(self) -> None:
        self.started = True

    def check(self) -> None:
        """Rank 0 notices if the directory is lost."""

    def check_owner(self) -> None:
        """Rank 0 notices if another process has taken it over."""

    def write_config(self, text: str) -> None:
        """Rank 0 writes it."""

    def status(self, **fields: Any) -> None:
        """Rank 0 writes it."""

    def close(self) -> None:
        """Nothing to release."""

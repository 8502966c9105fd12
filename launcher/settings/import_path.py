"""Folders on Python's path, to import the user's files and their neighbours; and folders that are data.

The working directory may be a folder that somebody downloaded. It is not searched at all until the user
names something that only a file there can mean, and comes last from then on: nothing in it can stand in
for an installed package, nor look like one.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType

# Removed when the run has ended: later imports of the process must not find these files.
added_to_path: set[str] = set()

_data: ContextVar[tuple[Path, ...]] = ContextVar("data", default=())


def file_of(module: ModuleType) -> str | None:
    """The file of a module; None for built-in ones, namespaces and notebooks."""
    return getattr(module, "__file__", None)


def add_to_path(folder: Path) -> None:
    """Put a folder last on Python's path, unless it is on it."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        added_to_path.add(str(folder))


@contextlib.contextmanager
def first_on_path(folder: Path) -> Iterator[None]:
    """Runs the block, which imports a file that the user named, with its folder first on Python's path.

    The file finds its neighbours as a script would: `import datasets` means the `datasets.py` beside it.
    """
    add_to_path(folder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # The file may have changed the path itself.
            sys.path.remove(str(folder))


def begin_command() -> None:
    """Forget what an earlier command read, and search the working directory last if it is searched.

    It is on the path where `PYTHONPATH` has an empty entry, as `PYTHONPATH=$PYTHONPATH:/mine` often leaves.
    """
    _data.set(())
    with contextlib.suppress(OSError):  # It has been removed.
        here = str(Path.cwd())
        found = [entry for entry in sys.path if entry in ("", here)]
        sys.path[:] = [entry for entry in sys.path if entry not in found] + found[:1]


def import_nothing_from(run: Path) -> None:
    """For the rest of this command, the files of a run directory are data, whatever they are called."""
    _data.set((*_data.get(), _folder_of_run(run)))


@contextlib.contextmanager
def importing_nothing_from(run: str | Path | None) -> Iterator[None]:
    """Runs the block while the files of a run directory, or of a checkpoint's, are data; None: of none."""
    before = _data.get()
    if run is not None:
        import_nothing_from(Path(run))
    try:
        yield
    finally:
        _data.set(before)


def is_data(folder: Path) -> bool:
    """Whether a folder lies in a run directory that is only to be read."""
    folder = folder.resolve()
    return any(folder.is_relative_to(data) for data in _data.get())


def _folder_of_run(path: Path) -> Path:
    """The run directory that a checkpoint belongs to; any other path as it is."""
    path = path.expanduser().resolve()
    for folder in (path, *path.parents[:2]):
        if (folder / "config.yaml").exists():
            return folder
    return path

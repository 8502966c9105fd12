"""Downloads data sets: whole or not at all, one run at a time, and never waiting for a server that hangs."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..replay import DownloadError, files

_CONNECT_SECONDS, _READ_SECONDS = 3.0, 30.0
_LOCK = ".downloading.lock"
_ARCHIVES = (".gz", ".tgz", ".bz2", ".xz", ".zip", ".tar", ".mat", ".npz", ".7z")
_DEPTH, _MOST_ENTRIES = 2, 1000  # How far below a folder archives are looked for.


def download(build: Callable[..., Any], folder: Path) -> Any:
    """Build a data set of torchvision; what is not in the folder is downloaded.

    It is downloaded and unpacked into a folder of its own, whose contents are moved once they are complete:
    of a download that fails, or that is killed, nothing is ever used. One that fails is tried once more,
    unless there is no network.

    Args:
        build: Makes the data set from `root` and `download`.
        folder: Where it belongs.

    Raises:
        DownloadError: If a server answered, but what it sent is of no use.
        Exception: Whatever `build` raises, if none answered.
    """
    with contextlib.suppress(Exception):  # Whatever is wrong with it: it is not there.
        return build(root=str(folder), download=False)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        with contextlib.suppress(Exception):  # Another run may have downloaded it.
            return build(root=str(folder), download=False)
        try:
            _download(build, folder)
        except _TryAgain as failed:
            print(f"The download failed ({failed}); trying once more.", file=sys.stderr)
            try:
                _download(build, folder)
            except _TryAgain as error:
                raise DownloadError(str(error)) from error.__cause__
    return build(root=str(folder), download=False)


class _TryAgain(Exception):
    """A server answered, but what it sent is of no use."""


def _download(build: Callable[..., Any], folder: Path) -> None:
    """Download into a new folder, and move what is there when it is complete."""
    partial = folder / f".{secrets.token_hex(8)}.partial"
    partial.mkdir()
    try:
        with impatient() as network:
            try:
                _link_archives(folder, partial)
                build(root=str(partial), download=True)
            except Exception as error:
                if network.answered:
                    cause = error.__cause__ or error
                    raise _TryAgain(f"{type(cause).__name__}: {cause}") from cause
                raise
        _move(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class Network:
    """Connects with little patience, in one thread.

    Attributes:
        answered: Whether any server accepted a connection.
    """

    def __init__(self) -> None:
        self.answered = False
        self._connect, self._thread = socket.create_connection, threading.get_ident()
        self._seconds = _CONNECT_SECONDS

    def connect(
        self,
        address: tuple[str, int],
        timeout: float | None = None,
        source_address: tuple[str, int] | None = None,
        **options: Any,
    ) -> socket.socket:
        """As `socket.create_connection`."""
        if threading.get_ident() != self._thread:
            return self._connect(address, timeout, source_address, **options)
        try:
            connected = self._connect(address, self._seconds, source_address, **options)
        except TimeoutError:
            self._seconds = _CONNECT_SECONDS / 6  # There is probably no way out at all.
            raise
        connected.settimeout(_READ_SECONDS)
        self.answered = True
        return connected


@contextlib.contextmanager
def impatient() -> Iterator[Network]:
    """Runs the block with limits for what has none: urllib waits for a server as long as it takes."""
    network, before = Network(), socket.create_connection
    socket.create_connection = network.connect  # type: ignore[assignment]
    try:
        yield network
    finally:
        socket.create_connection = before


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Runs the block while no other run downloads to the folder, and without what a killed one left there."""
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Waiting for another run that is downloading to {folder}.", file=sys.stderr)
        lock.acquire()
    try:
        files.remove_partial(folder)
        yield
    finally:
        lock.release()


def _link_archives(folder: Path, partial: Path, depth: int = 0) -> None:
    """Make the archives that a user has put into the folder available in the new one."""
    with os.scandir(folder) as found:
        entries = [entry for _, entry in zip(range(_MOST_ENTRIES), found, strict=False)]
    for entry in entries:
        if entry.name.startswith(".") or entry.is_symlink():
            continue
        if entry.is_dir() and depth < _DEPTH:
            _link_archives(Path(entry.path), partial / entry.name, depth + 1)
        elif entry.name.endswith(_ARCHIVES):
            partial.mkdir(parents=True, exist_ok=True)
            try:
                os.link(entry.path, partial / entry.name)
            except OSError:  # Not every file system has links.
                shutil.copyfile(entry.path, partial / entry.name)


def _move(source: Path, folder: Path) -> None:
    """Move everything below one folder to another, in as few renames as there can be."""
    for entry in source.iterdir():
        place = folder / entry.name
        if entry.is_dir() and place.is_dir():
            _move(entry, place)
        else:
            os.replace(entry, place)

"""Files and folders are written beside their place under a random name, then renamed to it.

A folder that came from elsewhere may hold links at the names that are about to be written. So a new file is
only ever made where nothing is (`O_CREAT | O_EXCL | O_NOFOLLOW`), and a rename replaces a link, not the file
that it leads to. A reader sees the old file or the new one, never half of either.
"""

import contextlib
import errno
import io
import os
import re
import secrets
import shutil
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any, TextIO

_PARTIAL = re.compile(r"\.[0-9a-f]{16}\.partial")
# Windows has none, and makes no links without a privilege.
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


@contextlib.contextmanager
def replacing(
    path: Path, mode: str = "w", *, sync: bool = False, newline: str | None = None
) -> Iterator[IO[Any]]:
    """A new file that takes the place of `path` when the block ends without an error.

    Args:
        path: Where the file belongs; its folder exists. What was there stays until the block ends.
        mode: "w" for text in UTF-8, "wb" for bytes.
        sync: Wait until the bytes are on the disk before the rename.
        newline: As `open` takes it, for text.

    Raises:
        OSError: Of the system (the disk is full, the folder is gone or read-only). Nothing is left behind.
    """
    partial = _beside(path)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINKS, 0o666)
    try:
        with os.fdopen(
            descriptor, mode, newline=newline, encoding=None if "b" in mode else "utf-8"
        ) as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise


@contextlib.contextmanager
def replacing_by_name(path: Path) -> Iterator[Path]:
    """A free name for a library that opens its files itself; what it wrote there takes the place of `path`.

    The name is that of `path`, in a new folder beside it, so that it has the suffix that libraries look at.
    Files that a library puts next to it (weights too large for the first one) are moved along, before it.

    Raises:
        OSError: Of the system. Nothing is left behind.
    """
    with _new_folder(path.parent) as folder:
        yield folder / path.name
        for file in sorted(folder.iterdir(), key=lambda file: file.name == path.name):
            os.replace(file, path.with_name(file.name))


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """An empty folder under a random name beside `path`, renamed to it when the block ends without an error.

    Raises:
        OSError: Of the system, also where `path` is a file, or a folder that is not empty. Nothing is left
            behind.
    """
    with _new_folder(path.parent) as folder:
        yield folder
        os.rename(folder, path)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, unless it is there.

    Raises:
        OSError: It is a link, or no folder, or the system refuses. Those above it may be links of the user's.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, f"{path} is a link", str(path))
    path.mkdir(parents=True, exist_ok=True)


def open_appending(path: Path, *, newline: str | None = None) -> TextIO:
    """Open a text file (UTF-8) to append to it; it is made where there is none, and never through a link.

    Raises:
        OSError: `path` is a link or no regular file, or the system refuses.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _NO_LINKS | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a regular file")
    return os.fdopen(descriptor, "a", newline=newline, encoding="utf-8")


def overwrite(path: Path, text: str) -> bool:
    """Write over a file, within the space that it has on a disk that may be full.

    Returns:
        False if the text does not fit, or the file is missing, a link, or has other names: it is unchanged.
    """
    data = text.encode()
    try:
        descriptor = os.open(path, os.O_WRONLY | _NO_LINKS | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return False
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        found = os.fstat(descriptor)
        room = max(found.st_size, getattr(found, "st_blocks", 0) * 512)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or len(data) > room:
            return False
        file.write(data)
        file.truncate()
    return True


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file of a found folder to read its bytes; links are not followed, and a FIFO is not waited for.

    Raises:
        OSError: `path` is a link or not a regular file, or the system refuses.
    """
    flags = os.O_RDONLY | _NO_LINKS | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if path.is_symlink():  # The system's own words speak of too many levels of links.
        raise OSError(errno.ELOOP, f"{path.name} is a link", str(path))
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{path.name} is not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_text(path: Path) -> str:
    """The text (UTF-8) of a file of a found folder, newlines as "\\n".

    Raises:
        OSError: As `open_regular` does.
        UnicodeDecodeError: The file is not UTF-8.
    """
    with open_regular(path) as file, io.TextIOWrapper(file, encoding="utf-8") as text:
        return text.read()


def link_in(
    folder: Path, *, names: Collection[str] = (), tracked: Collection[str] = ()
) -> Path | None:
    """The first link, FIFO, socket or device below a folder; None where there is none.

    Args:
        names: Look only at the entries of these names, and below them; none: at all.
        tracked: Names of folders directly in it, whose links may lead to anything within them.
    """
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if names and entry.name not in names:
                continue
            if entry.name in tracked and entry.is_dir(follow_symlinks=False):
                found = _link_out_of(Path(entry.path))
            elif entry.is_dir(follow_symlinks=False):
                found = link_in(Path(entry.path))
            else:
                found = None if entry.is_file(follow_symlinks=False) else Path(entry.path)
            if found is not None:
                return found
    return None


def _link_out_of(folder: Path) -> Path | None:
    """The first entry below a folder that is a FIFO or the like, or a link that leads out of the folder."""
    home = folder.resolve()
    for at, folders, entries in os.walk(folder):
        for path in (Path(at, name) for name in sorted(folders + entries)):
            real = path.resolve()
            if not real.is_relative_to(home) or (
                real.exists() and not (real.is_file() or real.is_dir())
            ):
                return path
    return None


def remove_partial(folder: Path) -> None:
    """Remove what a killed process left half-written directly in a folder."""
    for entry in folder.iterdir():
        if _PARTIAL.fullmatch(entry.name):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


@contextlib.contextmanager
def _new_folder(parent: Path) -> Iterator[Path]:
    folder = _beside(parent / "folder")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A name that nobody can have foreseen, in the folder of `path`; `remove_partial` knows it again."""
    return path.with_name(f".{secrets.token_hex(8)}.partial")

"""Decodes pictures once, into a file that later runs map into memory."""

from __future__ import annotations

import copy
import errno
import functools
import hashlib
import json
import math
import mmap
import os
import re
import shutil
import sys
import time
import warnings
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.utils.data import Dataset

from ..replay import DataError, LazyColumn
from ..replay.files import link_in
from ..replay.mapped import InFile, Mapped
from .images import Form, Pictures
from .parallel import by_all_cores
from .statistics import Sums, remember, sums_of

_VERSION = 1  # Version of an entry's format; others are never read.
_WORTH_S = 0.5  # Decoding that takes less CPU time is not worth a file.
_SECONDS_PER_PICTURE, _SECONDS_PER_BYTE = 2e-4, 2e-8  # To decode JPEG files, roughly.
_DISK_SHARE = 0.5  # Largest share of the free space: the disk is not ours alone.
_MEMORY_SHARE = 0.5  # Largest share of memory, where rows may be copied.
_BLOCK_BYTES, _BLOCK_ROWS = 4 * 2**20, 256  # Decoded at once by a worker.
_SYNC_S = 2.0  # Seconds between records of what is decoded: a power cut costs this much work.
_NAMES = re.compile(r"[0-9a-f]{32}(\.part)?")  # Names of entries.
_SHOWN = 5  # Broken pictures named in an error; the search ends at four times as many.


class PictureRows(Dataset[Any]):
    """A data set of pictures that come from files, but not each from one of its own.

    Attributes:
        files: Where its pictures are; None: it holds none, or they change without their files.
        targets: The target of each row.
    """

    files: Files | None
    targets: Any


@dataclass(frozen=True)
class Files:
    """Pictures that a data set reads from files, the same at every reading.

    Attributes:
        root: Identifies the data set among others in the cache, with `part`.
        part: The part of its rows that these are, or "" for all.
        paths: The file of each row.
        labels: The target of each row, `[N]`, or a list of words.
        image: Reads the picture of a row.
        listing: The files whose change makes what was decoded stale, those of other parts included.
        listed: Reads the picture of a file in `listing`, or of `count` pictures in these files.
        reader: Says how `image` reads a file.
        whole: Whether no rows are taken out later, which would copy them.
        count: How many pictures `listed` reads; None: one for each file in `listing`.
    """

    root: str
    part: str
    paths: Sequence[str]
    labels: Any
    image: Callable[[int], Any]
    listing: Sequence[str]
    listed: Callable[[int], Any]
    reader: str
    whole: bool
    count: int | None = None


@dataclass(frozen=True)
class _Listed:
    """Files of a data set.

    Attributes:
        digest: A hash of their names, sizes and times, and of the programs that decode them.
        size: Their bytes.
    """

    listing: Sequence[str]
    digest: str
    size: int

    @classmethod
    def of(cls, files: Files) -> _Listed:
        import PIL

        sizes, times = array("q"), array("q")  # Results of `os.stat` take 500 bytes each.
        for path in files.listing:
            stat = os.stat(path)
            sizes.append(stat.st_size)
            times.append(stat.st_mtime_ns)
        digest = hashlib.sha256(f"{_VERSION} {PIL.__version__} {files.reader}".encode())
        for path in files.listing:
            digest.update(f"\n{path}".encode(errors="surrogateescape"))
        for size, time_ns in zip(sizes, times, strict=True):
            digest.update(f"\n{size} {time_ns}".encode())
        return cls(files.listing, digest.hexdigest(), sum(sizes))


class Report(Protocol):
    """Tells the user what is going on."""

    def begin(self, text: str, done: int, total: int) -> None: ...

    def advance(self, done: int) -> None: ...

    def end(self) -> None: ...

    def say(self, text: str) -> None: ...


class Cache:
    """Decoded pictures on disk, an entry for each data set, size and colour.

    An entry is a folder with the pixels of all rows and a description. Its name is a hash of the source
    files' names, sizes and times, and of what pictures become; so what has changed is decoded again, and
    the entry for the previous files is deleted. While an entry is being made it has another name, and
    what was decoded is recorded: an interrupted run goes on from there. A lock lets one process do it.

    Args:
        folders: Where to keep entries: the first that can be written to.
        report: Tells the user.
        storage: Where rows are: `ram`; `mmap`: outside memory; `stream`: where they came from.
        window: Rows that are read in any order from what can only be read in turn.

    Attributes:
        notes: Why something was not kept, for the run's header.
    """

    def __init__(
        self, folders: Sequence[Path], report: Report, *, storage: str = "ram", window: int = 1
    ):
        self.folders, self.report = list(folders), report
        self.window = window
        self.mapped, self.streamed = storage == "mmap", storage == "stream"
        # Where rows are written to; none: they are not written. None: they are in memory.
        self.rows: list[Path] | None = {"mmap": self.folders, "stream": []}.get(storage)
        self.notes: list[str] = []
        self._last: _Listed | None = None

    def column(
        self, files: Files, name: str, pictures: Pictures
    ) -> Tensor | LazyColumn | Mapped | None:
        """The pixels of all rows, `[N, C, H, W]`, over mapped memory; None: decode them in another way.

        In that case, too, `pictures` are settled on all parts.

        Args:
            name: What the user calls the data.
            pictures: How pictures become tensors; settled by this, if it was not.

        Raises:
            DataError: If files cannot be decoded; several are named at once. If rows have to stay outside
                memory and cannot be stored.
        """
        if self.streamed:
            _settle(pictures, files)
            return self._stream(files, name, pictures)
        pixels = self._pixels(files, name, pictures)
        if pixels is not None and self.mapped:
            source = InFile(pixels.numpy())
            if pixels.dtype == torch.uint8:
                remember(source, sums_of(pixels))
            return Mapped.of(source)
        if pixels is None:
            _settle(pictures, files)
        elif not files.whole and pixels.nbytes > _MEMORY_SHARE * _memory_bytes():
            # Row by row: whoever took rows out would copy them into memory.
            shape, dtype = tuple(pixels.shape[1:]), pixels.dtype
            return LazyColumn(pixels, torch.clone, shape=shape, dtype=dtype)
        return pixels

    def _stream(self, files: Files, name: str, pictures: Pictures) -> LazyColumn:
        """The pixels of all rows, decoded at each use; their sums need a pass, by all cores."""
        form, n = pictures.form(), len(files.paths)
        dtype = torch.from_numpy(np.empty(0, form.dtype)).dtype
        column = LazyColumn(_Decoded(files), pictures, shape=form.shape, dtype=dtype)
        if form.dtype != np.uint8:
            return column
        starts = range(0, n, _BLOCK_ROWS)

        def work(block: int) -> list[Any]:
            end = min(n, starts[block] + _BLOCK_ROWS)
            return sums_of(column.take(torch.arange(starts[block], end))).state()

        self.report.begin(f"reading {n:,} pictures of {name} for their mean", 0, n)
        try:
            sums, count = None, 0
            with closing(by_all_cores(work, range(len(starts)))) as results:
                for _, found in results:
                    sums = Sums(*found) if sums is None else sums + Sums(*found)
                    self.report.advance(count := min(n, count + _BLOCK_ROWS))
        finally:
            self.report.end()
        if sums is not None:
            remember(column, sums)
        return column

    def _listed(self, files: Files) -> _Listed:
        """The files' sizes and times, read once for all parts of a data set."""
        if self._last is None or self._last.listing is not files.listing:
            self._last = _Listed.of(files)
        return self._last

    def _pixels(self, files: Files, name: str, pictures: Pictures) -> Tensor | None:
        try:
            listed = self._listed(files)
        except OSError:
            return None  # Reading it gives the error.
        # Of all parts: a small one of a large folder is kept too.
        pictures_read = len(files.listing) if files.count is None else files.count
        seconds = _SECONDS_PER_PICTURE * pictures_read + _SECONDS_PER_BYTE * listed.size
        if seconds < _WORTH_S and not self.mapped:
            return None
        source = listed.digest
        asked = f"{source} {files.part} {pictures.state()}"
        key = hashlib.sha256(asked.encode()).hexdigest()[:32]
        # By its path: folders of the same name are kept apart.
        at = hashlib.sha256(f"{files.root} {files.part} {files.reader}".encode()).hexdigest()[:12]
        homes = [folder / f"{Path(files.root).name}-{at}" for folder in self.folders]
        homes, refused = _without_links(homes)
        for home in homes:
            if (found := _opened(home / key, pictures, read_only=self.mapped)) is not None:
                return found
        for home in homes:
            try:
                home.mkdir(parents=True, exist_ok=True)
                with self._alone(home, name):
                    found = _opened(home / key, pictures, read_only=self.mapped)
                    if found is None:
                        _evict(home, source)
                        self._prepare(home / key, source, files, name, pictures)
                        found = _opened(home / key, pictures, read_only=self.mapped)
                    if found is not None:
                        return found
            except (OSError, NotImplementedError) as error:  # Some file systems have no locks.
                refused = refused or f"{home.parent}: {_reason(error)}"
        if self.mapped:
            raise DataError(
                f"storage=mmap: the decoded pictures of {name} cannot be stored ({refused}). Set data_dir= "
                "to a folder that can be written to, on a disk with enough room."
            )
        self.notes.append(
            f"{name} is decoded in memory, since the decoded pictures cannot be stored ({refused})"
        )
        return None

    @contextmanager
    def _alone(self, home: Path, name: str) -> Iterator[None]:
        """Hold the lock of an entry's folder; say so if another process has it."""
        lock = FileLock(home / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.report.say(f"waiting for another process that is decoding {name}")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _prepare(
        self, entry: Path, source: str, files: Files, name: str, pictures: Pictures
    ) -> None:
        """Decode all rows into an entry; after an interruption, those that are missing."""
        shutil.rmtree(entry, ignore_errors=True)  # It could not be opened.
        _settle(pictures, files)
        form = pictures.form()
        rows = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // form.nbytes))
        n, starts = len(files.paths), range(0, len(files.paths), rows)
        making = entry.with_suffix(".part")
        making.mkdir(exist_ok=True)
        (making / "source").write_text(source)
        pixels, journal = making / "pixels", making / "done.jsonl"
        if not _reserve(pixels, n * form.nbytes):
            journal.unlink(missing_ok=True)
        done = _Journal(journal, pixels)
        left = [block for block in range(len(starts)) if block not in done.blocks]

        def work(block: int) -> dict[str, Any]:
            which = range(starts[block], min(n, starts[block] + rows))
            return _decode(which, files, pictures, form, pixels)

        count, broken = (len(starts) - len(left)) * rows, []
        self.report.begin(f"decoding {n:,} pictures of {name} into {entry.parent}", count, n)
        try:
            with closing(by_all_cores(work, left)) as results:
                for block, result in results:
                    if found := result.pop("broken"):
                        broken += found
                    else:
                        done.add(block, result)
                    if len(broken) >= 4 * _SHOWN:
                        break
                    count += rows
                    self.report.advance(min(count, n))
        finally:
            done.write()
            self.report.end()
        if broken:
            more = f"\nAnd {len(broken) - _SHOWN} or more others." if len(broken) > _SHOWN else ""
            raise DataError("\n".join(broken[:_SHOWN]) + more)
        found = list(done.blocks.values())
        about = {
            "version": _VERSION,
            "shape": [n, *form.shape],
            "dtype": form.dtype.name,
            "pictures": {**pictures.state(), "unturned": any(one.get("unturned") for one in found)},
            "sizes": sorted({tuple(size) for one in found for size in one["sizes"]}),
            "sums": [one["sums"] for one in found] if form.dtype == np.uint8 else [],
        }
        (making / "about.json").write_text(json.dumps(about))
        done.path.unlink()
        making.rename(entry)


class _Decoded:
    """The pictures of files, each decoded when it is read."""

    def __init__(self, files: Files):
        self.files = files

    def __len__(self) -> int:
        return len(self.files.paths)

    def __getitem__(self, i: int) -> Any:
        return self.files.image(i)


class _Journal:
    """What is decoded, a line for each block; written once its pixels are on the disk.

    Attributes:
        blocks: What was recorded, by the number of the block.
    """

    def __init__(self, path: Path, pixels: Path):
        self.path, self.pixels = path, pixels
        self.blocks: dict[int, dict[str, Any]] = {}
        self._new: list[str] = []
        self._written = time.monotonic()
        whole = []
        # What follows the last whole line was being written when the machine stopped.
        for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else ():
            try:
                block, result = json.loads(line)
            except (ValueError, TypeError):  # A file system may leave anything there, zeros say.
                break
            self.blocks[block] = result
            whole.append(line + b"\n")
        path.write_bytes(b"".join(whole))

    def add(self, block: int, result: dict[str, Any]) -> None:
        self.blocks[block] = result
        self._new.append(json.dumps([block, result]) + "\n")
        if time.monotonic() - self._written > _SYNC_S:
            self.write()

    def write(self) -> None:
        if not self._new:
            return
        with open(self.pixels, "r+b") as file:
            os.fsync(file.fileno())
        with open(self.path, "a") as file:
            file.write("".join(self._new))
            file.flush()
            os.fsync(file.fileno())
        self._new, self._written = [], time.monotonic()


def _without_links(homes: list[Path]) -> tuple[list[Path], str]:
    """The folders without links, FIFOs or devices, through which we could write to anywhere else.

    Returns:
        The folders, and why another was left out.
    """
    kept, refused = [], ""
    for home in homes:
        link = home if home.is_symlink() else link_in(home) if home.is_dir() else None
        if link is None:
            kept.append(home)
        else:
            refused = refused or f"{link} is a link, or not a regular file"
    return kept, refused


def _settle(pictures: Pictures, files: Files) -> None:
    """Settle size and mode on as many pictures as decoding in memory looks at, from all parts."""
    if pictures.size is not None:
        return
    found, n, first = [], files.count or len(files.listing), None
    for i in range(0, n, max(1, n // 100)):
        try:
            found.append(files.listed(i))
        except DataError as error:  # Decoding names all that are broken.
            first = first or error
    if first is not None and not found:
        raise first
    pictures.settle(found)


def _decode(
    which: range, files: Files, pictures: Pictures, form: Form, file: Path
) -> dict[str, Any]:
    """Decode some rows into the file; returns what the journal records of them."""
    pictures = copy.copy(pictures)  # Several threads may do this.
    pictures.sizes = set()
    pixels = np.empty((len(which), *form.shape), form.dtype)
    broken = []
    for k, row in enumerate(which):
        try:
            pixels[k] = pictures(files.image(row)).numpy()
        except DataError as error:
            broken.append(str(error))
        except Exception as error:  # PIL's decoders raise nearly anything.
            broken.append(
                f"{files.paths[row]} cannot be read as a picture ({type(error).__name__}: {error})."
            )
    sums = None
    if not broken:
        with open(file, "r+b") as opened:
            opened.seek(which.start * form.nbytes)
            opened.write(pixels.data)
        if pixels.dtype == np.uint8:
            sums = sums_of(torch.from_numpy(pixels)).state()
    return {
        "sums": sums,
        "sizes": sorted(pictures.sizes),
        "unturned": pictures.unturned,
        "broken": broken,
    }


def _opened(entry: Path, pictures: Pictures, *, read_only: bool) -> Tensor | None:
    """The pixels of a complete entry; None: there is none.

    Args:
        read_only: Whether a write to them ends the process. A limit on its memory then leaves them out.
    """
    try:
        about = json.loads((entry / "about.json").read_text())
        shape, dtype = about["shape"], getattr(torch, about["dtype"])
        nbytes = math.prod(shape) * dtype.itemsize
        with open(entry / "pixels", "rb") as file:
            if about["version"] != _VERSION or os.fstat(file.fileno()).st_size != nbytes:
                return None
            if read_only:
                mapping = mmap.mmap(file.fileno(), nbytes, access=mmap.ACCESS_READ)
            elif sys.platform == "linux":
                # Private: a write to the rows would copy the page, and leave the file as it is. The system
                # reserves no memory for such copies (MAP_NORESERVE), since nothing writes.
                flags, both = mmap.MAP_PRIVATE | 0x4000, mmap.PROT_READ | mmap.PROT_WRITE
                mapping = mmap.mmap(file.fileno(), nbytes, flags=flags, prot=both)
            else:
                mapping = mmap.mmap(file.fileno(), nbytes, access=mmap.ACCESS_COPY)
        pictures.settle_as(about["pictures"], about["sizes"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        column = torch.frombuffer(mapping, dtype=dtype).view(shape)
    if about["sums"]:
        remember(column, functools.reduce(Sums.__add__, (Sums(*one) for one in about["sums"])))
    return column


def _evict(home: Path, source: str) -> None:
    """Delete entries for earlier states of the same files; one that is in use stays mapped."""
    for entry in home.iterdir():
        if _NAMES.fullmatch(entry.name) and not entry.is_symlink():
            try:
                stale = (entry / "source").read_text() != source
            except OSError:
                stale = True
            if stale:
                shutil.rmtree(entry, ignore_errors=True)


def _reserve(path: Path, size: int) -> bool:
    """Make a file of this size, which the disk has room for: one that fills up later kills with SIGBUS.

    Returns:
        Whether it was there already, and as large.

    Raises:
        OSError: If the disk has too little room.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        held = os.fstat(file).st_size
        free = shutil.disk_usage(path.parent).free
        if size - held > _DISK_SHARE * free:
            raise OSError(
                errno.ENOSPC,
                f"{size / 1e9:.1f} GB are needed, and half of {free / 1e9:.1f} GB may be used",
            )
        if held != size:
            try:
                os.posix_fallocate(file, 0, size)
            except (AttributeError, OSError) as error:
                if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                    raise
            os.truncate(file, size)
        return held == size
    finally:
        os.close(file)


def _memory_bytes() -> int:
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 2**33


def _reason(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()

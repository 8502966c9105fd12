"""Storage of transitions: named fields with a fixed number of rows, in RAM or in a file."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .blocks import Field, field_bytes
from .errors import ConfigError
from .transfer import Empty

# Fields up to this many bytes share a record: a row then costs one cache miss, not one per field.
SMALL = 256
# Bytes of a mapped file that may stay resident before its pages are released.
_RESIDENT = 64 * 2**20
# Linux maps this many bytes around each byte that is accessed.
_AROUND = 64 * 2**10

Frames = Callable[[np.ndarray, np.ndarray], np.ndarray]
# Field that holds how many rows further on a transition's `next_obs` is; saved replays use this name.
BOOTSTRAP_OFFSET = "hop"


class Columns:
    """Fields written and gathered by row number.

    Small fields are packed into one record per row; a large field (an image) is an array of its own,
    in which rows of one environment are adjacent. The five frames of a stack and its successor are then
    read at once, a quarter faster than from five places.

    Args:
        fields: Shape and dtype of one row of each field.
        rows: Number of rows.
        unpacked: Small fields that are not packed, because they are read from other rows as well.
        num_envs: Number of environments, a divisor of `rows`; row r belongs to environment `r % num_envs`.
        mapped: Use an unnamed file, which the system pages in and out. It may be larger than RAM, and is
            deleted when the process ends, however that happens.
        folder: The folder for that file; default: the system's folder for large temporary files.
    """

    def __init__(
        self,
        fields: Mapping[str, Field],
        rows: int,
        *,
        unpacked: Collection[str] = (),
        num_envs: int = 1,
        mapped: bool = False,
        folder: str | None = None,
    ):
        self.fields, self.rows, self.num_envs = dict(fields), rows, num_envs
        small = {n: f for n, f in fields.items() if field_bytes(f) <= SMALL and n not in unpacked}
        # The widest first: every field is then aligned without padding.
        order = sorted(small, key=lambda name: -small[name][1].itemsize)
        record = np.dtype([(name, small[name][1], small[name][0]) for name in order], align=True)
        self._packed = frozenset(small)  # Names of the fields in the records.
        self._large = {n for n, f in fields.items() if field_bytes(f) > SMALL}
        self._maps: list[mmap.mmap] = []
        self._touched = 0

        if mapped:
            nbytes = rows * sum(field_bytes(field) for field in fields.values())
            folder = _folder_with_space(folder, nbytes)

        def make(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
            if mapped:
                return self._mapped(shape, dtype, folder)
            try:
                return np.zeros(shape, dtype)
            except MemoryError as error:
                raise ConfigError(
                    f"{error}. Lower capacity, or set replay.storage=mmap."
                ) from error

        self._records = make((rows,), record)
        self._row_bytes = _AROUND + record.itemsize
        self.arrays = {name: self._records[name] for name in small}
        for name in sorted(fields.keys() - self._packed):
            self.arrays[name] = make((rows, *fields[name][0]), fields[name][1])
            self._row_bytes += _AROUND + field_bytes(fields[name])
        self._names = tuple(fields)

    def _mapped(self, shape: tuple[int, ...], dtype: np.dtype[Any], folder: str | None) -> Any:
        size = max(1, int(np.prod(shape)) * dtype.itemsize)
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file.fileno(), size)
            file.truncate(size)
            mapping = mmap.mmap(file.fileno(), size)
        if hasattr(mmap, "MADV_RANDOM"):
            # Read-ahead would fill memory with rows that nobody asked for.
            mapping.madvise(mmap.MADV_RANDOM)
        self._maps.append(mapping)
        return np.frombuffer(mapping, dtype, count=int(np.prod(shape))).reshape(shape)

    def write(self, rows: Any, values: Mapping[str, Any]) -> None:
        """Store values `[n, *shape]` of some fields in n rows, given by number or as a slice."""
        arrays, by_env = self.arrays, self._large if self.num_envs > 1 else ()
        for name, value in values.items():
            arrays[name][self._place(name, rows) if name in by_env else rows] = value
        if self._maps:
            self._release(rows.stop - rows.start if isinstance(rows, slice) else len(rows))

    def _place(self, name: str, rows: Any) -> Any:
        """The indices of rows in a field's array."""
        if self.num_envs == 1 or name not in self._large:
            return rows
        if isinstance(rows, slice):
            rows = np.arange(rows.start, rows.stop)
        return rows % self.num_envs * (self.rows // self.num_envs) + rows // self.num_envs

    def add_to(self, name: str, rows: np.ndarray, value: np.ndarray) -> None:
        """Add `value` `[n, *shape]` to the stored values in `rows`, int64 `[n]`, without duplicates."""
        self.arrays[name][rows] += value

    def gather(
        self,
        index: np.ndarray,
        step: int | None,
        *,
        names: Sequence[str],
        pairs: Sequence[str],
        stacked: Sequence[str],
        frames: Frames,
        empty: Empty | None = None,
        ends: Sequence[str] = (),
        back: int = 0,
    ) -> dict[str, Tensor]:
        """The fields of a batch of transitions; rows past the last one wrap around.

        Args:
            index: Rows of the transitions, int64 `[B]`.
            step: Rows from each transition to its successor; None: read from the field `hop`.
            names: Fields to read at `index`.
            pairs: Fields to read at `index` and, as `next_<name>`, at the successor.
            stacked: Fields to read at the rows of their frames.
            frames: Returns those rows, `[n]`, for the rows `[B]` of transitions and of their successors.
            empty: Allocates the arrays to fill; None: ordinary memory.
            ends: Small fields among `names` to read at a transition's last step instead,
            back: this many rows before the successor.

        Returns:
            `[B, *shape]` for each name, two for each pair; `[n, *shape]` for each stacked field; and
            `index`.
        """
        records = self._taken(self._records, index, empty)
        fields = self._fields(records, index, names, empty)
        fields["index"] = torch.from_numpy(index)
        after = index + (records[BOOTSTRAP_OFFSET] if step is None else step)
        if ends:
            last = self._taken(self._records, after - back, None)
            fields.update({name: torch.from_numpy(last[name]) for name in ends})
        for name in pairs:
            both, n = self._take(name, np.concatenate((index, after)), empty), len(index)
            fields[name] = torch.from_numpy(both[:n])
            fields[f"next_{name}"] = torch.from_numpy(both[n:])
        if stacked:
            rows = frames(index, after)
            for name in stacked:
                fields[name] = torch.from_numpy(self._take(name, rows, empty))
        return fields

    def take(self, index: np.ndarray, names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """The rows at `index` (int64 `[B]`, wrapping around) of these fields; None: of every one."""
        records = self._taken(self._records, index, None)
        return self._fields(records, index, self._names if names is None else names, None)

    def _fields(
        self, records: np.ndarray, index: np.ndarray, names: Sequence[str], empty: Empty | None
    ) -> dict[str, Tensor]:
        """Fields of the rows at `index`, whose records are already gathered."""
        packed, from_numpy = self._packed, torch.from_numpy
        fields = {
            name: from_numpy(records[name] if name in packed else self._take(name, index, empty))
            for name in names
        }
        if self._maps:
            self._release(len(index))
        return fields

    def peek(self, name: str, rows: np.ndarray) -> np.ndarray:
        """The values of one field in some rows, on the host."""
        return self._take(name, rows, None)

    def _take(self, name: str, index: np.ndarray, empty: Empty | None) -> np.ndarray:
        if self._maps:
            self._release(len(index))
        if self.num_envs > 1 and name in self._large:
            index = self._place(name, index % self.rows)
        if name in self._packed:
            return self._taken(self._records, index, None)[name]
        return self._taken(self.arrays[name], index, empty)

    @staticmethod
    def _taken(array: np.ndarray, index: np.ndarray, empty: Empty | None) -> np.ndarray:
        if empty is None or not array.dtype.itemsize:
            return array.take(index, axis=0, mode="wrap")
        out = empty((len(index), *array.shape[1:]), array.dtype)
        return array.take(index, axis=0, mode="wrap", out=out)

    def _release(self, rows: int) -> None:
        """Release pages now and then; the file's data stays in the system's cache or on disk."""
        self._touched += rows * self._row_bytes
        if self._touched > _RESIDENT:
            self._drop_pages()

    def _drop_pages(self) -> None:
        if hasattr(mmap, "MADV_DONTNEED"):
            for mapping in self._maps:
                mapping.madvise(mmap.MADV_DONTNEED)
        self._touched = 0

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop` of a field, `[stop - start, *shape]`, without a copy where possible.

        With several environments, both are multiples of their number.
        """
        array = self.arrays[name]
        if self._maps:
            # A copy, so that the file's pages do not stay in memory until all of them have been read.
            part = np.array(array[start:stop])
            self._drop_pages()
            return part
        if self.num_envs == 1 or name not in self._large:
            return array[start:stop]
        by_env = array.reshape(self.num_envs, -1, *array.shape[1:])
        places = by_env[:, start // self.num_envs : stop // self.num_envs]
        return places.swapaxes(0, 1).reshape(stop - start, *array.shape[1:])

    def restore(self, name: str, kept: np.ndarray, start: int = 0) -> None:
        """Store what `read` returned, from row `start` on."""
        rows = np.arange(start, start + len(kept))
        self.arrays[name][self._place(name, rows)] = kept
        if self._maps:
            self._release(len(kept))


def _reserve(file: int, size: int) -> None:
    """Take the space of a file on its disk, where the system can: one that fills up later kills with SIGBUS.

    Raises:
        ConfigError: If there is too little.
    """
    try:
        os.posix_fallocate(file, 0, size)
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise ConfigError(
                f"replay.storage=mmap needs {size / 1e9:.1f} GB for a file, and the system refuses "
                f"({error.strerror}). Lower capacity, or set replay.folder."
            ) from error


def _folder_with_space(folder: str | None, size: int) -> str:
    """The folder, if `size` bytes fit."""
    folder = folder or ("/var/tmp" if os.path.isdir("/var/tmp") else tempfile.gettempdir())
    if not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
        raise ConfigError(f"replay.folder={folder} is not a writable folder.")
    if size > (free := shutil.disk_usage(folder).free):
        raise ConfigError(
            f"replay.storage=mmap needs {size / 1e9:.1f} GB in {folder}, which has {free / 1e9:.1f} GB free. "
            "Lower capacity, or set replay.folder."
        )
    return folder

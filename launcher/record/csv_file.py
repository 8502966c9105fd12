"""Rows as a CSV file: written one by one, read back one by one, and never all of them in memory."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from ...replay.files import open_appending, open_regular, replacing
from ..metrics import metrics_of

Row = dict[str, Any]

_MOST_WAITING = 10_000  # Rows that could not be written, about 3 MB.


class CSV:
    """Rows of one mode as a CSV file, without times: a resumed run must write the same bytes.

    A row with a new name rewrites the file with a wider header. A metric of one task adds columns for all
    tasks at once, so that two hundred tasks do not rewrite the file two hundred times.

    A row that cannot be written waits, and is written before the next one; so do ten thousand, at most. What
    a failed write has left in the file is cut off.

    Args:
        tasks: Number of tasks.

    Attributes:
        count: Number of rows in the file.
        waiting: Rows that could not be written yet.
        lost: Number of rows that never will be.
    """

    mode: str

    def __init__(self, path: Path, *, mode: str, tasks: int = 1):
        self.path, self.name, self.mode, self.tasks = path, path.name, mode, tasks
        self.columns: dict[str, None] = {}  # An ordered set.
        self.count = 0
        self.waiting: list[Row] = []
        self.lost = self._said_missing = 0
        self._named: dict[str, None] = {}  # The names in its rows, in the order they first came.
        self._outdated = True  # Whether the file has other columns, or is not there.
        self._file: TextIO | None = None
        self._end = 0  # Bytes of whole rows.

    def write(self, row: Row) -> None:
        """Write a row, unless it is of another mode.

        Raises:
            OSError: Of the system. The row is written before the next one.
        """
        if row["mode"] == self.mode:
            if len(self.waiting) == _MOST_WAITING:
                del self.waiting[0]
                self.lost += 1
            self.waiting.append(row)
            self._widen(row)
            self._write_waiting()

    def _write_waiting(self) -> None:
        if self._outdated:
            self._rewrite()
            return
        if self._file is None:
            self._file = open_appending(self.path, newline="")  # Open as long as the run.
        data, at = self._lines(self.waiting).encode(), self._file.fileno()
        try:
            written = 0
            while written < len(data):
                written += os.write(at, data[written:])
        except OSError:
            self._outdated = True  # If it cannot even be cut.
            os.ftruncate(at, self._end)
            self._outdated = False
            raise
        self._added(len(data))

    def _added(self, size: int) -> None:
        self._end += size
        self.count += len(self.waiting)
        self.waiting = []

    def expect(self, tasks: int) -> None:
        """Add columns for this many tasks, in the order of a file that started with them."""
        self.tasks, self.columns, self._outdated = tasks, {}, True
        self._widen(self._named)

    def _widen(self, names: Iterable[str]) -> None:
        """Add columns for the names in a row."""
        for name in names:
            if name not in self._named:
                self._named[name] = None
            if name not in self.columns:
                self.columns |= dict.fromkeys(_with_name(name, self.tasks))
                self._outdated = True

    def _lines(self, rows: Iterable[Row], *, header: bool = False) -> str:
        text = io.StringIO()
        # `_widen` has added every name; "raise" would search each row for others again.
        writer = csv.DictWriter(
            text, self.columns, restval="", extrasaction="ignore", lineterminator="\n"
        )
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def _rewrite(self) -> None:
        """Write the file with its present columns: the rows that it has, and those that wait."""
        self._close_file()
        with replacing(self.path, newline="") as file:
            file.write(self._lines((), header=True))
            for row in islice(_records(self.path), self.count) if self.count else ():
                file.write(self._lines([row]))
            file.write(self._lines(self.waiting))
            file.flush()
            size = os.fstat(file.fileno()).st_size
        self._end, self._outdated = 0, False
        self._added(size)

    def sync(self) -> None:
        """Write the rows that wait, and wait until what is in the file is on the disk.

        Raises:
            OSError: If the latter fails.
        """
        if self.waiting:
            with contextlib.suppress(OSError):  # It was said when the row was written.
                self._write_waiting()
        if self._file is not None:
            os.fsync(self._file.fileno())

    def cut(self, count: int) -> None:
        """Keep the first `count` rows of the file, after which the next ones are written."""
        self._close_file()
        self.columns, self.count, self.waiting, self._named = {}, 0, [], {}
        rows, unseen = _records(self.path), None
        for row in islice(rows, count):
            unseen = dict.fromkeys(row) if unseen is None else unseen
            self.count += 1
            for name in [name for name in unseen if row[name]]:
                del unseen[name]
                self._widen((name,))
        if self.count == 0:
            self._outdated = True
            self.path.unlink(missing_ok=True)
            return
        more = next(rows, None) is not None
        rows.close()
        self._outdated = [*self.columns] != next(csv.reader(_whole_lines(self.path)))
        self._end = self.path.stat().st_size
        if self._outdated or more or not _ends_whole(self.path):
            self._rewrite()

    def close(self) -> None:
        """Close the file.

        Raises:
            OSError: If rows could not be written, now or before; once.
        """
        if self.waiting:
            with contextlib.suppress(OSError):
                self._write_waiting()
        self._close_file()
        missing, said = len(self.waiting) + self.lost, self._said_missing
        self._said_missing = missing
        if missing > said:
            raise OSError(f"{missing:,} of {self.count + missing:,} rows could not be written")

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _with_name(name: str, tasks: int) -> list[str]:
    """A new column, and those that later rows add with it."""
    metric, found, _ = name.rpartition("/task_")
    if found:
        return [name, *(f"{metric}/task_{i}" for i in range(tasks))]
    sequence = metrics_of("tasks")
    if name in [metric.name for metric in sequence if metric.after == 1]:
        return [name, *(metric.name for metric in sequence if metric.after > 1)]
    return [name]


def read_csv(path: Path) -> list[Row]:
    """The rows of a run's CSV file, numbers as numbers; an incomplete last line is left out."""
    return list(rows_of(path))


def rows_of(path: Path) -> Iterator[Row]:
    """The rows of a run's CSV file one by one, as `read_csv` returns them."""
    for row in _records(path):
        yield {name: _number(value) for name, value in row.items() if value != ""}


def _records(path: Path) -> Generator[dict[str, str], None, None]:
    """The rows of a file as text, by the names in its header."""
    lines = _whole_lines(path)
    names: list[str] = []
    for record in csv.reader(lines):
        if names and record:
            yield dict(zip(names, record, strict=False))
        names = names or record


def _whole_lines(path: Path) -> Iterator[str]:
    """The lines of a file, without an incomplete last one; none if there is no file."""
    try:
        file = open_regular(path)
    except FileNotFoundError:
        return
    with file, io.TextIOWrapper(file, encoding="utf-8", newline="\n") as text:
        for line in text:
            if line.endswith("\n"):
                yield line


def _ends_whole(path: Path) -> bool:
    with open_regular(path) as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _number(text: str) -> Any:
    convert: Callable[[str], Any]
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text

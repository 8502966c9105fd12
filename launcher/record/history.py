"""The rows of a run: the newest in memory, the older ones read back from its CSV files."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, overload

from .csv_file import Row, rows_of

_IN_MEMORY = 16_384  # Rows, about 5 MB.
_READ = 4096  # Rows that are read back at once to look one up.
_NUMBERS = (int, float)
_PLACES = ("step", "epoch", "task")


class History(Sequence[Row]):
    """The rows of a run in the order they were written: behaves as a list of dicts, but cannot be changed.

    Long runs keep only their newest rows in memory. Older ones are read from the CSV files whenever they are
    asked for: iterate over them rather than index them one by one.

    Args:
        files: The CSV file of each mode; without any, all rows are kept in memory.
        counts: Number of rows of each mode that are in the files already.
    """

    def __init__(self, files: Mapping[str, Path], counts: Mapping[str, int] | None = None):
        self._files = dict(files)
        # Rows of each mode that are in the files only, and how many those are.
        self._older = {mode: (counts or {}).get(mode, 0) for mode in files}
        self._rows: list[Row] = []
        # The rows that were looked up last, and the number of the first.
        self._found: tuple[int, list[Row]] = (0, [])
        if self.num_older <= _IN_MEMORY:
            self._rows, self._older = list(self._read_older()), dict.fromkeys(files, 0)

    @property
    def num_older(self) -> int:
        """Number of rows that are in the files only."""
        return sum(self._older.values())

    def append(self, row: Row, *, in_file: bool) -> None:
        """Add a row.

        Args:
            in_file: Whether this row and all before it are in the files.
        """
        self._rows.append(row)
        if in_file and self._files and len(self._rows) > _IN_MEMORY:
            half = _IN_MEMORY // 2
            for old in self._rows[:half]:
                self._older[old["mode"]] += 1
            del self._rows[:half]

    def _read_older(self) -> Iterator[Row]:
        parts = [islice(rows_of(path), self._older[mode]) for mode, path in self._files.items()]
        # Where several have a row for a step, the first file's comes first.
        return heapq.merge(*parts, key=itemgetter("step"))

    def __len__(self) -> int:
        return self.num_older + len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return chain(self._read_older(), self._rows) if self.num_older else iter(self._rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: Any) -> Any:
        older = self.num_older
        if isinstance(index, slice):
            numbers = range(len(self))[index]
            if not numbers or min(numbers[0], numbers[-1]) >= older:
                return [self._rows[i - older] for i in numbers]
            first, last = sorted((numbers[0], numbers[-1]))
            found = list(islice(self, first, last + 1, abs(numbers.step)))
            return found if numbers.step > 0 else found[::-1]
        number = range(len(self))[index]
        if number >= older:
            return self._rows[number - older]
        start, found = self._found
        if not start <= number < start + len(found):
            start = number // _READ * _READ
            found = list(islice(self._read_older(), start, min(start + _READ, older)))
            self._found = (start, found)
        return found[number - start]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (list, History)):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._rows) if not self.num_older else f"<history of {len(self):,} rows>"

    def condensed(self, most: int = 20_000) -> list[Row]:
        """All rows; where there are more than `most`, means of equally many neighbours, for pictures."""
        if len(self) <= most:
            return list(self)
        size = -(-len(self) // most)
        condensed: list[Row] = []
        groups: dict[str, list[Row]] = {}
        for row in self:
            group = groups.setdefault(row["mode"], [])
            if group and (len(group) == size or group[0].get("task") != row.get("task")):
                condensed.append(_mean_of(group))
                group.clear()
            group.append(row)
        return condensed + [_mean_of(group) for group in groups.values() if group]


def _mean_of(rows: list[Row]) -> Row:
    """The last of some rows, with the means of all numbers but those that say where it belongs."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, _NUMBERS) and value == value and name not in _PLACES:
                values.setdefault(name, []).append(value)
    return {**rows[-1], **{name: sum(found) / len(found) for name, found in values.items()}}

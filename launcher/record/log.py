"""What a run records: `Log`, which `learn` receives, and `Journal`, which keeps the rows."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Protocol, TextIO

import numpy as np
import torch
from torch import Tensor

from ...agents.learn_method import LearnMethod
from ...replay import ConfigError, Replay
from ...replay.files import open_appending
from ..metrics import PLACES, metrics_of
from .directory import write_whole
from .spared import Spared

Row = dict[str, Any]


class Log:
    """Records scalars: `log.loss = loss`, `log["critic/loss"] = 0.1`.

    Tensors are detached and stay on their device: nothing waits for it until a row is written. A row
    holds the mean of each name's values since the previous row.
    """

    antelope_state: ClassVar[bool] = False  # Left out of what its holder saves.

    def __init__(self) -> None:
        self.__dict__["_pending"] = {}

    def __setitem__(self, name: str, value: Any) -> None:
        if name in PLACES:
            raise ConfigError(f"log.{name}: train.csv has a column of that name. Choose another.")
        if isinstance(value, Tensor):
            if value.numel() != 1:
                raise ConfigError(
                    f"log.{name} records a scalar, but received a tensor of shape "
                    f"{list(value.shape)}. Log its mean, for example."
                )
            value = value.detach().reshape(()).clone()  # The model may change it in place later.
        else:
            try:
                value = float(value)
            except (TypeError, ValueError):
                raise ConfigError(
                    f"log.{name} records a number or a 0-d tensor, but received "
                    f"{type(value).__name__} {value!r:.40}."
                ) from None
        self.record(name, value)

    __setattr__ = __setitem__

    def record(self, name: str, value: Tensor | float) -> None:
        """Record without a check: a float, or a detached 0-d tensor that is not changed in place later."""
        pending = self.__dict__["_pending"]
        if name in pending:
            pending[name].append(value)
        else:
            pending[name] = [value]

    def last(self, name: str) -> Tensor | float | None:
        """The newest value of a name since the last row."""
        values = self.__dict__["_pending"].get(name)
        return values[-1] if values else None

    def __getattr__(self, name: str) -> Tensor | float:
        value = self.last(name) if not name.startswith("__") else None
        if value is None:
            raise AttributeError(f"Nothing was logged as {name!r} since the last row.")
        return value

    def __getitem__(self, name: str) -> Tensor | float:
        return self.__getattr__(name)

    def take(self, *, finite: bool = False) -> dict[str, float]:
        """The mean of every name's values since the last row; clears them.

        Args:
            finite: Leave out values that are NaN or infinite, and names that have no others.
        """
        values = self.state_dict()
        self.__dict__["_pending"] = {}
        if finite:
            values = {name: [x for x in each if math.isfinite(x)] for name, each in values.items()}
        return {name: _mean(each) for name, each in values.items() if each}

    def state_dict(self) -> dict[str, list[float]]:
        """The values since the last row, as numbers."""
        pending = self.__dict__["_pending"]
        numbers = iter(as_floats([value for values in pending.values() for value in values]))
        return {name: list(islice(numbers, len(values))) for name, values in pending.items()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        self.__dict__["_pending"] = {name: list(values) for name, values in state.items()}


def as_floats(values: Sequence[Tensor | float]) -> list[float]:
    """Floats of numbers and 0-d tensors of any device and dtype, in order.

    Transfers once per device and dtype: one transfer per value would wait for the GPU each time.
    """
    groups: dict[Any, list[int]] = {}
    for i, value in enumerate(values):
        kind = (value.device, value.dtype) if isinstance(value, Tensor) else None
        groups.setdefault(kind, []).append(i)
    numbers = [0.0] * len(values)
    for kind, places in groups.items():
        found: list[Any] = [values[i] for i in places]
        if kind is not None:
            found = torch.stack(found).cpu().double().tolist()
        for i, number in zip(places, found, strict=True):
            numbers[i] = float(number)
    return numbers


def _mean(values: list[float]) -> float:
    try:
        return math.fsum(values) / len(values)
    except (ValueError, OverflowError):  # Infinities, which fsum refuses to add up.
        return sum(values) / len(values)


class Writer(Protocol):
    """A destination of rows: a CSV file or a tracker.

    Attributes:
        name: What messages call it.
    """

    name: str

    @property
    def mode(self) -> str | None:
        """Mode of the rows that it is given, "train" or "eval"; None: all."""

    def write(self, row: Row) -> None: ...

    def close(self) -> None: ...


def quiet(learn: LearnMethod | None) -> Callable[[Replay, Log | None], Any]:
    """Wrap `learn` so that it accepts None for its log, and then discards what it logs."""

    def learn_quietly(replay: Replay, log: Log | None) -> Any:
        return learn(replay, Log() if log is None else log) if learn is not None else None

    return learn_quietly


class Journal:
    """The rows of a run, in memory and in every writer.

    A writer that fails does not end the run: see `Spared`.

    Args:
        writers: Called with each row.
        report: Shows a line to the user.

    Attributes:
        history: All rows, in the order they were written.
    """

    def __init__(self, writers: list[Writer], report: Callable[[str], None]):
        self.writers = writers
        self.history: list[Row] = []
        said = "a row could not be written"
        self._write = [Spared(w.write, f"{w.name}: {said}", report) for w in writers]
        self._report = report

    def write(self, mode: str, **values: Any) -> Row:
        row = {"mode": mode, **values}
        self.history.append(row)
        for writer, write in zip(self.writers, self._write, strict=True):
            if writer.mode in (None, mode):
                write(row)
        return row

    def expect(self, tasks: int) -> None:
        """Add columns for this many tasks."""
        for writer in self.writers:
            if isinstance(writer, CSV):
                writer.expect(tasks)

    def sync(self) -> None:
        """Flush CSV files to the disk, so that a checkpoint never refers to rows that are lost."""
        for writer in self.writers:
            if isinstance(writer, CSV):
                writer.sync()

    def state_dict(self) -> dict[str, Any]:
        """Number of rows per mode that are in the files, and rows that could not be written yet.

        On resuming, later rows are dropped.
        """
        files = [writer for writer in self.writers if isinstance(writer, CSV)]
        unwritten = [row for file in files for row in file.unwritten]
        counts = {
            mode: sum(row["mode"] == mode for row in self.history)
            - sum(row["mode"] == mode for row in unwritten)
            for mode in ("train", "eval")
        }
        return {**counts, "unwritten": unwritten} if unwritten else counts

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep the rows up to the checkpoint; the resumed run writes the later ones again."""
        kept: list[Row] = []
        for writer in self.writers:
            if isinstance(writer, CSV):
                kept += writer.cut(state[writer.mode])
        self.history = sorted(kept, key=lambda row: row["step"])
        for row in state.get("unwritten", ()):
            self.write(**row)

    def close(self) -> None:
        for writer in self.writers:
            Spared(writer.close, writer.name, self._report)()


class CSV:
    """Rows of one mode as a CSV file, without times: a resumed run must write the same bytes.

    A row with a new name rewrites the file with a wider header. A metric of one task adds columns for all
    tasks at once, so that two hundred tasks do not rewrite the file two hundred times.

    Args:
        tasks: Number of tasks.

    Attributes:
        unwritten: Rows that the system has refused, on a full disk, say; the next one takes them along.
    """

    mode: str

    def __init__(self, path: Path, *, mode: str, tasks: int = 1):
        self.path, self.name, self.mode, self.tasks = path, path.name, mode, tasks
        self.columns: dict[str, None] = {}  # An ordered set.
        self.rows: list[Row] = []
        self.unwritten: list[Row] = []
        self._file: TextIO | None = None

    def write(self, row: Row) -> None:
        """Write a row, after those that could not be written before.

        Raises:
            OSError: Of the system. The file ends with a whole row, and this one is tried again later.
        """
        if row["mode"] != self.mode:
            return
        self.rows.append(row)
        self.unwritten.append(row)
        if self._widen(row):
            self._close()  # It is rewritten.
        self._write()

    def _write(self) -> None:
        if self._file is None:
            self._rewrite()
        else:
            _append(self._file.fileno(), self._lines(self.unwritten).encode())
        self.unwritten = []

    def expect(self, tasks: int) -> None:
        """Add columns for this many tasks, in the order of a file that started with them."""
        self._close()  # The next row rewrites it.
        self.tasks, self.columns = tasks, {}
        for row in self.rows:
            self._widen(row)

    def _widen(self, row: Row) -> bool:
        """Add columns for everything in a row; returns whether any is new."""
        before = len(self.columns)
        for name in row:
            if name not in self.columns:
                self.columns |= dict.fromkeys(_with_name(name, self.tasks))
        return len(self.columns) > before

    def _lines(self, rows: list[Row], *, header: bool = False) -> str:
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
        self._close()
        write_whole(self.path, self._lines(self.rows, header=True))
        self._file = open_appending(self.path, newline="")  # Open as long as the run.

    def sync(self) -> None:
        """Write what could not be written before, and flush the file to the disk.

        Raises:
            OSError: If flushing fails.
        """
        if self.unwritten:
            with contextlib.suppress(OSError):  # Said already, when the row was written.
                self._write()
        if self._file is not None:
            os.fsync(self._file.fileno())

    def cut(self, count: int) -> list[Row]:
        """Read the file back, keep its first `count` rows, and return them."""
        self.rows = read_csv(self.path)[:count]
        self.columns = {}
        for row in self.rows:
            self._widen(row)
        if self.rows or self.path.exists():
            self._rewrite() if self.rows else self.path.unlink()
        return self.rows

    def close(self) -> None:
        """Close the file.

        Raises:
            OSError: If rows could not be written.
        """
        if self.unwritten:
            with contextlib.suppress(OSError):
                self._write()
        self._close()
        if missing := len(self.unwritten):
            raise OSError(f"{missing} of {len(self.rows)} rows could not be written")

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _append(file: int, data: bytes) -> None:
    """Append all bytes to an open file, or none.

    Raises:
        OSError: Of the system, such as a full disk.
    """
    size, left = os.fstat(file).st_size, data
    try:
        while left:
            left = left[os.write(file, left) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file, size)
        raise


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
    if not path.exists():
        return []
    text = path.read_text()
    text = text[: text.rfind("\n") + 1]
    return [
        {name: _number(value) for name, value in row.items() if value != ""}
        for row in csv.DictReader(io.StringIO(text))
    ]


def _number(text: str) -> Any:
    convert: Callable[[str], Any]
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)

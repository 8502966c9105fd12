"""What a run records: `Log`, which `learn` receives, and `Journal`, which keeps the rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import islice, zip_longest
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from ...agents.learn_method import LearnMethod
from ...replay import ConfigError, Replay
from ...replay.ranks import ranks
from ..metrics import PLACES
from .csv_file import CSV, Row
from .history import History
from .spared import Spared


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

    def counts(self) -> dict[str, int]:
        """Number of values of each name since the last row."""
        return {name: len(values) for name, values in self.__dict__["_pending"].items()}

    def weight(self, factor: float, before: dict[str, int]) -> None:
        """Multiply what was recorded since `counts` returned `before`."""
        if factor != 1.0:
            for name, values in self.__dict__["_pending"].items():
                for i in range(before.get(name, 0), len(values)):
                    values[i] = values[i] * factor

    def pool(self) -> None:
        """Make the values those of all ranks of a run: the mean of what each has recorded."""
        if ranks().several:
            self.load_state_dict(pooled(ranks().objects(self.state_dict(), "what was logged")))

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


def pooled(each: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    """The values of all ranks as one: their means, of the k-th of each, over those that have one."""
    names = dict.fromkeys(name for one in each for name in one)
    return {
        name: [
            sum(found) / len(found)
            for values in zip_longest(*(one[name] for one in each if name in one))
            if (found := [v for v in values if v is not None])
        ]
        for name in names
    }


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
    """The rows of a run, in every writer and, the newest, in memory.

    A writer that fails does not end the run: see `Spared`.

    Args:
        writers: Called with each row.
        report: Shows a line to the user.

    Attributes:
        history: All rows, in the order they were written; without CSV files, all of them in memory.
    """

    def __init__(self, writers: list[Writer], report: Callable[[str], None]):
        self.writers = writers
        self._files = [writer for writer in writers if isinstance(writer, CSV)]
        self.history = History({file.mode: file.path for file in self._files})
        self._counts = {"train": 0, "eval": 0}
        said = "a row could not be written"
        self._write = [Spared(w.write, f"{w.name}: {said}", report) for w in writers]
        self._report = report

    def write(self, mode: str, **values: Any) -> Row:
        row = {"mode": mode, **values}
        for writer, write in zip(self.writers, self._write, strict=True):
            if writer.mode in (None, mode):
                write(row)
        self._counts[mode] += 1
        self.history.append(row, in_file=not any(f.waiting or f.lost for f in self._files))
        return row

    def expect(self, tasks: int) -> None:
        """Add columns for this many tasks."""
        for file in self._files:
            file.expect(tasks)

    def sync(self) -> None:
        """Flush CSV files to the disk, so that a checkpoint never refers to rows that are lost.

        Raises:
            OSError: Of the system.
        """
        for file in self._files:
            file.sync()

    def state_dict(self) -> dict[str, Any]:
        """Number of rows per mode that are in the files, and rows that could not be written yet.

        On resuming, later rows are dropped.
        """
        counts = self._counts | {file.mode: file.count for file in self._files}
        waiting = {file.mode: file.waiting for file in self._files if file.waiting}
        return {**counts, "waiting": waiting} if waiting else counts

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep the rows up to the checkpoint; the resumed run writes the later ones again."""
        for file in self._files:
            file.cut(state[file.mode])
        self._counts = {mode: state.get(mode, 0) for mode in self._counts}
        for writer, write in zip(self.writers, self._write, strict=True):
            for row in state.get("waiting", {}).get(writer.mode, ()):
                write({**row, "mode": writer.mode})
        counts = {file.mode: file.count for file in self._files}
        self.history = History({file.mode: file.path for file in self._files}, counts)
        for row in [row for file in self._files for row in file.waiting]:
            self.history.append(row, in_file=False)

    def close(self) -> None:
        for writer in self.writers:
            Spared(writer.close, writer.name, self._report)()


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)

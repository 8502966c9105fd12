"""What a run that continues reads back: its newest checkpoint, and the rows before that.

A checkpoint counts the rows that were written before it. What follows them in a file is written again, and is
cut off, whatever it is. Rows before it that are missing or damaged are named.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ...replay import CheckpointError
from ...replay.files import open_regular, replacing
from ..settings.plan import Plan
from .checkpoint import Checkpoints
from .console import Console

MODES = ("train", "eval")
# Added to the name of a file whose run goes on without the rows that it has lost.
_DAMAGED = ".damaged"


def newest_state(
    checkpoints: Checkpoints, path: Path, console: Console, *, force: bool
) -> dict[str, Any] | None:
    """The state of the newest valid checkpoint; None if there is none, and the run starts from scratch.

    Args:
        path: The run directory.
        console: Tells the user what was skipped.
        force: Whether to start from scratch where all checkpoints are damaged.

    Raises:
        CheckpointError: If all checkpoints are damaged.
    """
    state, problems = checkpoints.newest()
    if state is None and problems and not force:
        found = "\n".join(f"  {problem}" for problem in problems)
        error = CheckpointError(
            f"No checkpoint of the run in {path} can be read:\n{found}\nTo start over, with that run moved "
            "aside: resume=force. To continue it, restore one of them."
        )
        error.exit_code = 1  # What was asked for is right; the run is damaged.
        raise error
    for problem in problems:
        console.problem(f"Skipped: {problem}")
    if state is None:
        console.note(f"No checkpoint to resume from in {path} yet: starting from scratch.")
    return state


def rows_to_continue(
    plan: Plan, path: Path, console: Console, state: Mapping[str, Any]
) -> ReadBack | None:
    """The CSV files, compared with a checkpoint; None: the run wrote none, or writes none now.

    Args:
        path: The run directory.
        state: The whole checkpoint.

    Raises:
        CheckpointError: If they have lost rows, unless `override` says to go on without those.
    """
    if "csv" not in plan.loggers or "csv" not in state["settings"].get("loggers", ()):
        return None
    step = state["progress"]["step"]
    rows = ReadBack(path, state["journal"], step)
    if not rows.problems:
        return rows
    found = "; ".join(rows.problems)
    if "csv" not in (plan.override or ()):
        raise CheckpointError(
            f"The rows in {path} are not those that its checkpoint at step {step:,} continues: {found}. "
            "Restore the file, or add override=[csv] to continue with the rows that are there."
        )
    console.problem(f"Continued without the rows that are lost: {found}.")
    return rows


class ReadBack:
    """A run's CSV files, compared with a checkpoint. Nothing is changed until `mend`.

    Args:
        folder: The run directory.
        counts: Rows of each mode up to the checkpoint.
        step: That of the checkpoint: no row before it has a higher one.

    Attributes:
        problems: What is wrong with each file that lacks rows, beginning with its name.
    """

    def __init__(self, folder: Path, counts: Mapping[str, int], step: int):
        self.files = [
            _File(folder / f"{mode}.csv", mode, int(counts.get(mode, 0)), step) for mode in MODES
        ]

    @property
    def problems(self) -> list[str]:
        return [file.problem for file in self.files if file.problem is not None]

    def mend(self) -> dict[str, int]:
        """Cut off what follows the checkpoint's rows; keep the sound rows of files that lack some.

        Returns:
            The number of rows in each file.

        Raises:
            OSError: If a file cannot be written.
        """
        for file in self.files:
            file.mend()
        return {file.mode: file.rows for file in self.files}


class _File:
    """One file.

    Attributes:
        rows: Sound rows up to the checkpoint.
        end: The number of bytes up to the last of them, if none before it is damaged.
    """

    def __init__(self, path: Path, mode: str, count: int, step: int):
        self.path, self.mode, self._count, self._step = path, mode, count, step
        self.rows, self.end, self.problem = 0, 0, None
        if count == 0:
            return
        try:
            with open_regular(path) as file:
                self._read(file)
        except FileNotFoundError:
            self.problem = f"{path.name} is missing"
        except OSError as error:
            self.problem = f"{path.name} cannot be read ({error.strerror or error})"
        if self.problem is None and self.rows < count:
            self.problem = f"{path.name} holds {self.rows:,} of the {count:,} rows"

    def _read(self, file: BinaryIO) -> None:
        checked = _Checked(self.mode, self._step)
        for number, record in enumerate(_records(file), 1):
            if (problem := checked.wrong(record)) is not None:
                self.problem = f"{self.path.name}: line {number} {problem}"
                return
            self.end += len(record)
            if number > 1:
                self.rows += 1
            if self.rows == self._count:
                return

    def mend(self) -> None:
        if not os.path.lexists(self.path):
            return
        if self.problem is None:
            if self._count:
                os.truncate(self.path, self.end)
            return
        with replacing(self.path, "wb") as kept, open_regular(self.path) as file:
            self.rows, checked = 0, _Checked(self.mode, self._step)
            for number, record in enumerate(_records(file), 1):
                if checked.wrong(record) is None:
                    kept.write(record)
                    self.rows += number > 1
                elif number == 1:
                    break  # Without names of its columns, numbers mean nothing.
            # Not deleted: somebody may want to mend it by hand.
            os.replace(self.path, _free(self.path.with_name(self.path.name + _DAMAGED)))
        if self.rows == 0:
            self.path.unlink()


def _free(path: Path) -> Path:
    """The path, or one with a number if something is there."""
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free


class _Checked:
    """The lines of a file, which are checked one after another."""

    def __init__(self, mode: str, step: int):
        self._mode, self._last = mode, step
        self._names: list[str] = []
        self._newest = 0

    def wrong(self, record: bytes) -> str | None:
        """What is wrong with the next line; None: nothing."""
        if b"\0" in record:
            return "holds bytes of zero"
        if not record.endswith(b"\n"):
            return "is incomplete"
        try:
            values = next(csv.reader([record.decode()]), [])
        except UnicodeDecodeError:
            return "is not UTF-8"
        except csv.Error as error:
            return f"is not CSV ({error})"
        if not self._names:
            if "mode" not in values or "step" not in values:
                return "does not name the columns"
            self._names = values
            return None
        row = dict(zip(self._names, values, strict=False))
        if len(values) != len(self._names) or row["mode"] != self._mode:
            return "is not a row"
        try:
            step = int(row.pop("step"))
            [float(value) for name, value in row.items() if value and name != "mode"]
        except ValueError:
            return "holds something that is not a number"
        if not self._newest <= step <= self._last:
            return f"is out of place (step {step:,})"
        self._newest = step
        return None


def _records(file: BinaryIO) -> Iterator[bytes]:
    """Lines, joined where a quoted name holds a line break."""
    held = b""
    for line in file:
        held += line
        if held.count(b'"') % 2 == 0:
            yield held
            held = b""
    if held:
        yield held

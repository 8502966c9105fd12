"""Writes predictions to a file, a part at a time: memory does not grow with their number."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from ...replay import ConfigError
from ...replay.files import replacing_by_name
from .predicting import Predictor

Columns = dict[str, np.ndarray]
"""Columns `[n]` of a table, by name."""


def write_predictions(
    predictor: Predictor, inputs: object, path: Path, *, task: int | None = None
) -> int:
    """Predict for inputs and write the predictions; returns their number.

    The file appears whole or not at all. In `.csv` and `.parquet` its columns are `index`, or `file` for
    pictures from files; `prediction`; and for classes `probability_NAME` for each. A `.npy` file holds the
    predictions alone.

    Args:
        inputs, task: As for `Run.predict`.
        path: Ends in `.csv`, `.parquet` or `.npy`.

    Raises:
        ConfigError, DataError: As `Run.predict` does; also if the file cannot be written.
    """
    rows = predictor.rows(inputs)
    ending = path.suffix.lower()
    try:
        with (
            replacing_by_name(path) as partial,
            closing(_WRITERS[ending](partial, len(rows))) as writer,
            predictor.working(),
        ):
            for columns in _parts(predictor, rows, task, alone=ending == ".npy"):
                writer.write(columns)
    except OSError as error:
        raise ConfigError(f"Cannot write {path} ({error.strerror or error}).") from error
    return len(rows)


def _parts(predictor: Predictor, rows: Any, task: int | None, *, alone: bool) -> Iterator[Columns]:
    """The columns of each part of the rows; only `prediction` if `alone`."""
    first = 0
    for output in predictor.each(rows, task):
        chosen = predictor.chosen(output, task)
        last = first + len(chosen)
        if alone:
            yield {"prediction": chosen}
        else:
            where: Columns
            if rows.files is None:
                where = {"index": np.arange(first, last)}
            else:
                where = {
                    "file": np.array([str(file) for file in rows.files[first:last]], dtype=str)
                }
            yield where | _predictions(chosen) | _probabilities(predictor, output, task)
        first = last


def _predictions(chosen: np.ndarray) -> Columns:
    """One column, or one for each of several values: `prediction_0`, `prediction_1`, ...

    Raises:
        ConfigError: If a prediction is an array of several dimensions.
    """
    if chosen.ndim == 1:
        return {"prediction": chosen}
    if chosen.ndim > 2:
        raise ConfigError(
            f"Predictions have shape {list(chosen.shape[1:])} each, more dimensions than a table has. "
            "Write them to a .npy file: out=predictions.npy."
        )
    return {f"prediction_{number}": chosen[:, number] for number in range(chosen.shape[1])}


def _probabilities(predictor: Predictor, output: Any, task: int | None) -> Columns:
    """A column for each class; none for values, and for models that return classes without logits."""
    space = predictor.world.spec.action
    if not space.discrete or output.dim() != 2:
        return {}
    probable = predictor.probable(output, task)
    names = space.names or predictor.world.reading.classes or range(probable.shape[1])
    return {f"probability_{name}": probable[:, number] for number, name in enumerate(names)}


class _Writer(ABC):
    """Writes columns to a file.

    Args:
        path: The file.
        count: Number of rows in all.
    """

    def __init__(self, path: Path, count: int):
        self.path, self.count = path, count

    @abstractmethod
    def write(self, columns: Columns) -> None:
        """Write some rows."""

    @abstractmethod
    def close(self) -> None:
        """Finish the file; may be called again."""


class _CSV(_Writer):
    def __init__(self, path: Path, count: int):
        super().__init__(path, count)
        self._file = open(path, "w", newline="", encoding="utf-8")  # noqa: SIM115  (closed by `close`)
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._begun = False

    def write(self, columns: Columns) -> None:
        if not self._begun:
            self._rows.writerow(columns)
            self._begun = True
        # Floats as the shortest text that is read back as the same number.
        texts = [c.astype(str) if c.dtype == np.float32 else c for c in columns.values()]
        self._rows.writerows(zip(*(text.tolist() for text in texts), strict=True))

    def close(self) -> None:
        self._file.close()


class _Parquet(_Writer):
    _file: Any = None

    def write(self, columns: Columns) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise ConfigError(
                "A .parquet file needs pyarrow: pip install 'antelope-ml[tables]'. Or write a .csv file."
            ) from error
        table = pyarrow.table(columns)
        if self._file is None:
            self._file = parquet.ParquetWriter(self.path, table.schema)
        self._file.write_table(table)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class _NumPy(_Writer):
    _array: np.ndarray | None = None
    _done = 0

    def write(self, columns: Columns) -> None:
        part = columns["prediction"]
        if self._array is None:
            shape = (self.count, *part.shape[1:])
            self._array = np.lib.format.open_memmap(
                self.path, mode="w+", dtype=part.dtype, shape=shape
            )
        self._array[self._done : self._done + len(part)] = part
        self._done += len(part)

    def close(self) -> None:
        if self._array is not None:
            self._array.flush()  # type: ignore[attr-defined]
            self._array = None


_WRITERS: dict[str, Callable[[Path, int], _Writer]] = {
    ".csv": _CSV,
    ".parquet": _Parquet,
    ".npy": _NumPy,
}

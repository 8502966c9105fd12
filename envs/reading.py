"""How a data set's raw inputs and targets became rows, kept with a run so that new inputs become the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..replay import DataError, Space
from ..replay.spec import is_ragged, space_words
from ..replay.tree import Path, at_path, map_paths, map_tree, walk
from .arrays import Arrays, Headings
from .forms import is_image, is_scalar
from .headings import in_order
from .images import Pictures
from .inputs import called, is_whole
from .labels import check_finite
from .later import Outputs
from .numbers import as_tensor, kept_type
from .raw_inputs import Items, StoredRows, is_pair, raw_inputs, unturned
from .raw_parts import DictRows, raw_parts
from .raw_sequences import SequenceRows, sequence_column
from .table_columns import Columns
from .table_reading import table_rows


@dataclass(frozen=True)
class Reading:
    """How raw inputs become rows as a run's tables store them, and how outputs become classes again.

    Attributes:
        dtype: The dtype in which the training inputs were read: uint8, bool, int64, float32 or float64; for a
            dict of inputs, a dict of dtypes.
        channels: Where images in arrays have their channels, as the user set it; None: their shape says.
        pictures: Decodes pictures as the training part settled it; None: they take their form from the spec.
        classes: The value that each output stands for, as the data had it: numbers, words or booleans;
            None: its own number.
        listed: Whether `classes` are names that the data lists beside the numbers of its classes.
        flat: Whether the targets are values that came as `[N]`.
        columns: How the columns of a table became inputs; None: they came from no table.
        headings, target_headings: The names of the columns of data frames given as inputs or targets, as
            `Arrays` has them.
    """

    dtype: Any
    channels: str | None = None
    pictures: Pictures | None = None
    classes: tuple[Any, ...] | None = None
    listed: bool = False
    flat: bool = False
    columns: Columns | None = None
    headings: Headings = None
    target_headings: Headings = None

    @classmethod
    def of(cls, obs: Any, action: Any) -> Reading:
        """The reading that a spec alone tells, for runs that did not keep theirs."""
        dtype = map_tree(lambda part: torch.int64 if part.ids is not None else part.dtype, obs)
        names = action.names if isinstance(action, Space) else None
        return cls(dtype, classes=names, listed=names is not None)

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {
            "dtype": map_tree(_word, self.dtype),
            "channels": self.channels,
            "pictures": None if self.pictures is None else self.pictures.state(),
            "classes": self.classes,
            "listed": self.listed,
            "flat": self.flat,
            "columns": None if self.columns is None else self.columns.state(),
            "headings": self.headings,
            "target_headings": self.target_headings,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Reading:
        """The reading that `state` described."""
        pictures, columns = state["pictures"], state.get("columns")
        return cls(
            map_tree(lambda dtype: getattr(torch, dtype), state["dtype"]),
            state["channels"],
            None if pictures is None else Pictures.from_state(pictures),
            state["classes"],
            state["listed"],
            state["flat"],
            None if columns is None else Columns.from_state(columns),
            state.get("headings"),
            state.get("target_headings"),
        )

    def with_classes(self, classes: tuple[Any, ...] | None) -> Reading:
        """The same with other classes: a run learns more of them later."""
        return replace(self, classes=classes)

    def rows(
        self, inputs: Any, space: Space | dict[str, Any], *, name: str = "the inputs"
    ) -> StoredRows:
        """Raw inputs as stored rows, which are read a part at a time.

        Args:
            inputs: As `raw_inputs` accepts them, or, for dicts, `raw_parts`. One array may hold a single
                input: it then has one dimension less. Of a run on a table, see `table_rows`.
            space: The space of the run's inputs, or a dict of spaces.
            name: What errors call them.

        Raises:
            DataError: If they are not inputs, or have another shape than those of the training.
        """
        if (known := self.columns) is not None and (
            rows := table_rows(known, space, inputs, name)
        ) is not None:
            return rows
        if not isinstance(space, Space):
            return self._rows_of_dicts(raw_parts(inputs, space, name), space, name)
        if self.columns is None and isinstance(inputs, Mapping):
            keys = ", ".join(map(str, list(inputs)[:8]))
            raise DataError(f"{_begin(name)} are a dict ({keys}). {self._learnt_from(space)}")
        if is_ragged(space):
            column = sequence_column(inputs, space, name)
            return SequenceRows(
                column.converted(lambda steps: self.as_stored(steps, space, name), space.dtype)
            )
        features = space.shape[0] if len(space.shape) == 1 else None
        inputs = in_order(inputs, self._names, name)
        raw = raw_inputs(inputs, name, features=features)
        if self.pictures is not None and self.pictures.unturned:
            raw = unturned(raw)
        if not isinstance(raw, Items):
            # Before anything is computed: a wrong shape is the most frequent mistake.
            _, alone = self._layout(tuple(raw.shape), space, name)
            if alone and is_pair(inputs) and tuple(inputs[1].shape) == tuple(raw.shape):
                raise DataError(
                    f"{_begin(name)} are a pair of arrays {list(raw.shape)}: two inputs, or one with its "
                    "target? Give a list of inputs, or the input alone."
                )
            raw = raw[None] if alone else raw
        return Rows(self, space, raw, name)

    @property
    def _names(self) -> tuple[str | int, ...] | None:
        """The names of the columns of a single input."""
        return None if isinstance(self.headings, dict) else self.headings

    def _rows_of_dicts(
        self, raw: dict[str, Any] | Items, spaces: dict[str, Any], name: str
    ) -> DictRows:
        if isinstance(raw, Items):
            empty = Items(0, lambda i: i)
            rows = map_paths(
                lambda path, space: Rows(self.of_part(path), space, empty, name + called(path)),
                spaces,
            )
            return DictRows(rows, raw)
        rows = map_paths(
            lambda path, space: self.of_part(path).rows(
                at_path(raw, path), space, name=name + called(path)
            ),
            spaces,
        )
        counts = {path: len(part) for path, part in walk(rows)}
        (one, n), *others = counts.items()
        if wrong := [path for path, count in others if count != n]:
            more = f"{counts[wrong[0]]:,}{called(wrong[0])}"
            raise DataError(f"{_begin(name)} differ in number: {n:,}{called(one)}, {more}.")
        return DictRows(rows, None)

    def of_part(self, path: Path) -> Reading:
        """The reading of one part of a dict of inputs; `()`: of a single input."""
        pictures = None if self.pictures is None else self.pictures.of(path)
        if pictures is not None and pictures.size is None:
            pictures = None
        names = at_path(self.headings, path) if isinstance(self.headings, dict) else self.headings
        return replace(self, dtype=at_path(self.dtype, path), pictures=pictures, headings=names)

    # ------------------------------------------------------------------------------- one part

    def stored(self, value: Any, space: Space, name: str, *, first: int = 0) -> Tensor:
        """Rows `[N, *space.shape]` as tables store them.

        Args:
            value: An array of N inputs.
            first: The number of the first row, for messages.

        Raises:
            DataError: Naming what the run was trained on, if these are something else.
        """
        rows = as_tensor(value, f"Part of {name}").cpu()
        layout, _ = self._layout(tuple(rows.shape), space, name)
        if layout == "last":
            rows = rows.movedim(-1, 1)
        elif layout == "grey":
            rows = rows[:, None]
        # As tables hold them: models may call `view`, and convolutions round differently otherwise.
        return self.as_stored(rows.contiguous(), space, name, first=first)

    def as_stored(self, rows: Tensor, space: Space, name: str, *, first: int = 0) -> Tensor:
        """Rows, or steps of sequences, in the form of the training inputs, as tables store them."""
        rows = self._of_source(rows, space, name)
        check_finite(rows, name.removeprefix("the "), first=first)
        if space.ids is not None and rows.numel():
            self._check_ids(rows, space, name)
        stored = rows.to(space.dtype) if space.scale is None else space.scale.column(rows)
        if rows.dtype == torch.float64 and not torch.isfinite(stored.sum(dtype=torch.float64)):
            raise DataError(
                f"{_begin(name)} hold numbers too large for float32{_ends(rows)}. {self._learnt_from(space)}"
            )
        return stored

    def decoded(self, image: Any, space: Space, name: str) -> Tensor:
        """A PIL image as a stored row `[C, H, W]`.

        Raises:
            DataError: If the run was trained on something else, or this one has colours that it cannot have.
        """
        pictures = self.pictures or Pictures.like(space.shape, self.dtype)
        if pictures is None:
            raise DataError(f"{_begin(name)} are pictures. {self._learnt_from(space)}")
        row = pictures.matching(image, name)
        return row.to(space.dtype) if space.scale is None else space.scale.stored(row)

    def _layout(self, given: tuple[int, ...], space: Space, name: str) -> tuple[str, bool]:
        """Where inputs of a shape have their channels ("first", "last"; "grey": none), and whether it is one.

        Raises:
            DataError: If the shape is not that of the training inputs.
        """
        shape = space.shape
        known = [(shape, "first")]
        if len(shape) >= 3:
            # Only where all sizes are equal does the order of the two matter.
            known.insert(0 if self.channels == "last" else 1, ((*shape[1:], shape[0]), "last"))
        if len(shape) == 3 and shape[0] == 1:
            known.append((shape[1:], "grey"))
        for alone, row in ((False, given[1:]), (True, given)):
            for one, layout in known:
                if row == one and (alone or given):
                    return layout, alone
        forms = " or ".join(f"[{', '.join(map(str, ('N', *one)))}]" for one, _ in known)
        raise DataError(
            f"{_begin(name)} have shape {list(given)}. {self._learnt_from(space)} Give {forms}, or a single "
            "input without N."
        )

    def _check_ids(self, rows: Tensor, space: Space, name: str) -> None:
        low, high = int(rows.min()), int(rows.max())
        if low < float(space.low or 0) or high >= space.n:
            wrong = high if high >= space.n else low
            raise DataError(
                f"{_begin(name)} hold {wrong:,}. The run was trained on integers from {space.low:,} to "
                f"{space.n - 1:,}, and its model knows no others."
            )

    def _of_source(self, rows: Tensor, space: Space, name: str) -> Tensor:
        """The rows in a dtype that means the same as that of the training inputs."""
        rows = rows.to(kept_type(rows.dtype))
        have, want = rows.dtype, self.dtype
        if have == want:
            return rows
        if want == torch.uint8 and have == torch.int64 and _within(rows, 0, 255):
            return rows.to(want)
        if want == torch.bool and have in (torch.int64, torch.uint8) and _within(rows, 0, 1):
            return rows.to(want)
        if space.ids is not None and have == torch.uint8:
            return rows.to(want)
        numbers = want.is_floating_point or (is_whole(want) and space.ids is None)
        if numbers and (have.is_floating_point or have == torch.int64):
            return rows
        raise DataError(
            f"{_begin(name)} are {_word(have)}{_ends(rows)}. {self._learnt_from(space)} Convert them in the "
            "same way."
        )

    def _learnt_from(self, space: Space) -> str:
        """`The run was trained on uint8 inputs [3, 32, 32], with values from 0 to 255.`"""
        if not isinstance(space, Space):
            return f"The run was trained on {space_words(space)}."
        ends = ""
        if space.low is not None and space.high is not None and self.dtype != torch.bool:
            low, high = (np.asarray(end).min() for end in (space.low, space.high))
            ends = f", with values from {low:.6g} to {high:.6g}"
        what = "pictures" if self.pictures is not None else "inputs"
        return f"The run was trained on {_word(self.dtype)} {what} {list(space.shape)}{ends}."

    # ------------------------------------------------------------------------------- outputs

    def values(self, outputs: np.ndarray) -> np.ndarray:
        """The classes that numbers of outputs stand for, as the data had them.

        Args:
            outputs: int64 `[N, ...]`.
        """
        if self.classes is None:
            return outputs
        known = np.array(self.classes)
        return known[outputs]


class Rows:
    """Raw inputs as stored rows, read and checked a part at a time.

    Args:
        raw: One array of them, or items.
        name: What errors call them.

    Attributes:
        files: The path of each input; None: they come from no files.
    """

    def __init__(self, reading: Reading, space: Space, raw: Tensor | np.ndarray | Items, name: str):
        self._reading, self._space, self._raw, self._name = reading, space, raw, name
        self.files = raw.files if isinstance(raw, Items) else None

    def __len__(self) -> int:
        return len(self._raw)

    def parts(self, size: int) -> Iterator[Tensor]:
        """Stored rows `[n, *shape]`, at most `size` at a time, in order; if there are none, one empty part.

        Raises:
            DataError: If a part holds something other than the training inputs did.
        """
        raw, space, name = self._raw, self._space, self._name
        for first in range(0, len(raw), size) or (0,):
            if isinstance(raw, Items):
                last = min(first + size, len(raw))
                yield self.stored([raw[i] for i in range(first, last)], first)
            else:
                yield self._reading.stored(raw[first : first + size], space, name, first=first)

    def stored(self, values: Sequence[Any], first: int) -> Tensor:
        """These inputs as stored rows `[n, *shape]`; `first` is the number of the first one."""
        space = self._space
        rows = [self._row(value, first + i) for i, value in enumerate(values)]
        return torch.cat(rows) if rows else torch.empty((0, *space.shape), dtype=space.dtype)

    def _row(self, item: Any, i: int) -> Tensor:
        """Row i, `[1, *shape]`."""
        if is_image(item):
            name = f"Picture {i} of {self._name}" if self.files is None else str(self.files[i])
            return self._reading.decoded(item, self._space, name)[None]
        rows = as_tensor(item, f"Part of {self._name}")[None]
        if not self._space.shape and is_scalar(item):
            rows = rows.reshape(1)
        return self._reading.stored(rows, self._space, self._name, first=i)


def later_classes(reading: Reading, outputs: Outputs, train: Arrays) -> tuple[Any, ...] | None:
    """The classes of a run that has learnt later data too.

    Args:
        reading: With the classes before.
        outputs: The outputs with this data's.
        train: The later data, numbered as the run has it.
    """
    if outputs.taken is None:
        return outputs.known
    before = reading.classes
    if before is None:
        return None
    own = train.values or train.names or tuple(range(outputs.taken - len(before)))
    classes = (*before, *own)
    return classes if len(set(classes)) == len(classes) else None


def _begin(name: str) -> str:
    return name[:1].upper() + name[1:]


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _ends(rows: Tensor) -> str:
    return f", from {rows.min().item():.6g} to {rows.max().item():.6g}" if rows.numel() else ""


def _within(rows: Tensor, low: int, high: int) -> bool:
    return not rows.numel() or (int(rows.min()) >= low and int(rows.max()) <= high)


def reading_of(
    kind: str,
    scenario: str,
    train: Sequence[Arrays],
    *,
    channels: str | None,
    pictures: Pictures | None,
) -> Reading:
    """The reading of data sets that form a sequence.

    Args:
        kind: How they form it; see `sequence_kind`.
        scenario: What an output means.
        train: The data sets as they were read, with their classes numbered as the run has them.
        channels: Where images in arrays have their channels, as the user set it.
        pictures: What decoded the pictures, if there are any.
    """
    first, last = train[0], train[-1]
    return Reading(
        map_tree(lambda column: column.dtype, first.inputs),
        channels,
        pictures,
        _classes(kind, scenario, train),
        listed=last.values is None and last.names is not None,
        flat=first.flat,
        columns=first.columns,
        headings=first.headings,
        target_headings=first.target_headings,
    )


def _classes(kind: str, scenario: str, train: Sequence[Arrays]) -> tuple[Any, ...] | None:
    """The value that each output stands for, as the data had it; None: its own number."""
    last = train[-1]
    if last.kind == "pixels":
        return last.values
    if not last.discrete or (kind == "split" and scenario == "domain"):
        return None
    if kind != "list" or scenario == "domain":
        values = last.values or last.names
    elif all(part.values for part in train):  # Each with outputs of its own.
        values = tuple(value for part in train for value in part.values or ())
    else:
        values = last.names
    if values is None or len(set(values)) < len(values):
        return None  # Two data sets have a class of this name: only the number tells them apart.
    if last.chosen and values is last.names and all(name.isdecimal() for name in values):
        return tuple(map(int, values))  # The numbers in `subset=`.
    return values

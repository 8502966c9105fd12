"""Matches the labels of data that is added to a sequence later with the known ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ..replay import ConfigError, DataError, Ragged, Spec
from ..replay.storage import select
from ..replay.tree import at_path, leaves, walk
from .arrays import Arrays, take_rows
from .description import check_alike
from .inputs import called, extremes
from .labels import IN_WORDS
from .lengths import stored_values
from .numbering import in_words, number_labels

_LOOKED_AT = 1000  # Rows whose inputs enter a digest: enough to identify data, and quickly read.


@dataclass
class Outputs:
    """The label of each output of a model; later data adds labels.

    Attributes:
        n: Number of outputs.
        known: Labels of the first outputs, numbers or strings; None: each output's own number.
        listed: Whether `known` are names that a data set lists in its `classes`.
        chosen: Whether `subset=` chose `known`, by number: a label without a name is then such a number.
        taken: Number of outputs in use, if each data set has its own after the previous ones; else None.
    """

    n: int
    known: tuple[Any, ...] | None = None
    listed: bool = False
    chosen: bool = False
    taken: int | None = None

    @property
    def names(self) -> tuple[str, ...] | None:
        """A name for every output, `output 3` for those not known yet; None: no output has a name."""
        if self.known is None:
            return None
        unknown = range(len(self.known), self.n)
        return (*map(str, self.known), *(f"output {number}" for number in unknown))

    def number(self, train: Arrays, test: Arrays) -> tuple[Outputs, Arrays, Arrays]:
        """The outputs including this data's, and its parts with numbers of outputs as labels.

        Raises:
            ConfigError: If there are more classes than outputs.
            DataError: If its labels cannot be matched with earlier ones, or held-out ones are unknown.
        """
        if self.taken is not None:
            return self._behind(train, test)
        if self.known is None and train.chosen and train.names is not None:
            train, test = (_by_number(part) for part in (train, test))
        if self.chosen:
            train, test = (_by_name(part) for part in (train, test))
        if self.known is None or (self.listed and not _words(train)):
            if _words(train) and train.names is None:
                raise DataError(
                    f"{train.name} has string labels, but this run started with numbers. Give the "
                    "classes' numbers, or use strings from the start."
                )
            for part in (train, test):
                self._check(int(part.targets.max()) + 1, f"label {int(part.targets.max())}", part)
                if (low := int(part.targets.min())) < 0:
                    raise DataError(f"{part.name} holds label {low}. Labels start at 0.")
            return self, train, test
        if isinstance(self.known[0], str) and not _words(train):
            raise DataError(
                f"{train.name} has numbers as labels, but this run started with strings "
                f"({in_words(self.known)}). Give strings here too."
            )
        met = _met(train)
        known = (*self.known, *(value for value in met if value not in self.known))
        new = [value for value in met if value not in self.known]
        what = f"{len(new)} new classes" if len(new) > 1 else "a new class"
        self._check(len(known), f"{what} ({in_words(new)})" if new else "", train)
        if unknown := [value for value in _met(test) if value not in known]:
            raise DataError(
                f"Labels out of range: {test.name} holds label {unknown[0]}, which is not among the training "
                f"data's: {in_words(known)}."
            )
        train, test = (replace(part, targets=_places(part, known)) for part in (train, test))
        return replace(self, known=known), train, test

    def _behind(self, train: Arrays, test: Arrays) -> tuple[Outputs, Arrays, Arrays]:
        """Number this data's classes after those of earlier data."""
        assert self.taken is not None
        train, held_out = number_labels(train, test)
        assert held_out is not None
        count = train.num_classes or int(train.targets.max()) + 1
        self._check(self.taken + count, f"{count} classes", train)
        taken = self.taken
        train, test = (replace(p, targets=p.targets + taken) for p in (train, held_out))
        known = self.known
        if known is not None:
            known = (*known[: self.taken], *(train.names or map(str, range(count))))
        return replace(self, taken=taken + count, known=known), train, test

    def _check(self, wanted: int, what: str, part: Arrays) -> None:
        if wanted > self.n:
            raise ConfigError(
                f"{part.name} holds {what}, but this run's model has {self.n} outputs, for classes 0 to "
                f"{self.n - 1}. Set num_classes={wanted} or more at the start of the run."
            )


def are_numbers(arrays: Arrays) -> bool:
    """Whether labels are integers without class names, and so may be output numbers."""
    return arrays.discrete and arrays.names is None and arrays.values is None


def check_numbers(parts: Sequence[Arrays], n: int) -> None:
    """Raise for labels that are not output numbers, 0 to `num_classes` - 1."""
    for part in parts:
        if not part.discrete:
            raise ConfigError(
                f"num_classes={n} counts classes, but the targets of {part.name} are "
                f"{IN_WORDS[part.kind]}."
            )
        low, high = int(part.targets.min()), int(part.targets.max())
        if low < 0 or max(high + 1, part.num_classes or 0) > n:
            found = f"{part.num_classes} classes" if part.num_classes else f"labels {low} to {high}"
            raise ConfigError(
                f"{part.name} has {found}, but num_classes={n} allows classes 0 to {n - 1} only."
            )


def digest(train: Arrays, test: Arrays) -> str:
    """A digest that identifies data: of its labels, and of the inputs of some rows."""
    found = hashlib.sha256()
    for part in (train, test):
        # Not all inputs: hashing gigabytes would take longer than reading them.
        rows = torch.arange(0, len(part), max(1, len(part) // _LOOKED_AT))
        for column in leaves(part.inputs):
            found.update(f"{tuple(column.shape)} {column.dtype}".encode())
        some = map(stored_values, leaves(select(part.inputs, rows)))
        for tensor in (*chain.from_iterable(some), part.targets):
            found.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _by_number(arrays: Arrays) -> Arrays:
    """Classes that `subset=` chose, renumbered back to the numbers in it."""
    names = arrays.names or ()
    if not all(name.isdecimal() for name in names):
        raise DataError(
            f"{arrays.name} holds some of its classes ({in_words(names)}), renumbered from 0 by subset=, "
            "but the run's first data has no class names to match them with. Give rows whose labels are "
            "output numbers."
        )
    numbers = torch.tensor([int(name) for name in names])
    return replace(arrays, targets=numbers[arrays.targets], names=None, values=None)


def _by_name(arrays: Arrays) -> Arrays:
    """Labels without names, with their numbers as names."""
    if arrays.names is not None or arrays.values is not None:
        return arrays
    return replace(arrays, names=tuple(map(str, range(int(arrays.targets.max()) + 1))))


def _words(arrays: Arrays) -> bool:
    values = arrays.values or arrays.names
    return values is not None and isinstance(values[0], str)


def _value(arrays: Arrays, label: int) -> Any:
    if arrays.values is None and arrays.names is not None:
        return arrays.names[label]
    return arrays.value(label)


def _met(arrays: Arrays) -> list[Any]:
    """The labels that occur, in order."""
    return [_value(arrays, label) for label in arrays.targets.unique().tolist()]


def _places(arrays: Arrays, known: tuple[Any, ...]) -> Tensor:
    place = {value: i for i, value in enumerate(known)}
    labels, inverse = arrays.targets.unique(return_inverse=True)
    return torch.tensor([place[_value(arrays, label)] for label in labels.tolist()])[inverse]


def first_row(arrays: Arrays) -> Arrays | None:
    """The data set's first row, to compare later data with; None: it is not in memory."""
    return take_rows(arrays, torch.tensor([0])) if arrays.in_memory else None


def check_later(first: Arrays, part: Arrays, spec: Spec) -> None:
    """Raise DataError for data that a model of this spec cannot learn after the first."""
    if not part.in_memory:
        raise DataError(
            f"{part.name} is read from its source at each use, but a later task must be held in memory: "
            "replace random transforms with aug=, or add fewer rows at a time."
        )
    check_alike(first, part)
    for path, space in walk(spec.obs):
        column = at_path(part.inputs, path)
        if space.ids is None:
            continue
        low, high = extremes([column.values if isinstance(column, Ragged) else column])
        if low < space.low or high >= space.ids:
            of_part = called(path)
            raise DataError(
                f"{part.name} holds integers{' in' * bool(of_part)}{of_part} from {low} to {high}, but "
                f"this run's model was built for {space.low} to {space.ids - 1}."
            )

"""Numbers labels of any values 0 to n - 1, alike in training and held-out data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..replay import DataError
from .labels import check_labels
from .pixel_classes import number_pixels

if TYPE_CHECKING:
    from .arrays import Arrays

_MANY = 1000  # More classes than this, most of them with a single row, are amounts.
_IGNORED = (-100, -1, 255)  # Labels that often mark rows to leave out: torch's ignore_index, say.


def number_labels(train: Arrays, test: Arrays | None) -> tuple[Arrays, Arrays | None]:
    """Both parts with labels 0 to n - 1.

    Labels stay as they are if the data set lists its `classes`, or they are already 0 to n - 1. Otherwise
    they are numbered in sorted order, and `values`, `names` and `note` of both parts say how.

    Raises:
        DataError: If a held-out label is not among the training data's, labels exceed the listed
            classes, or they are amounts rather than classes.
    """
    if test is not None and test.kind != train.kind:
        return train, test  # An error of its own, once the data is described.
    if train.kind == "pixels":
        return number_pixels(train, test)
    if not train.discrete:
        return train, test
    if train.names is not None:
        return train, None if test is None else _as_declared(train, test)
    known = _met(train)
    learnt = set(known)
    _refuse_amounts(known, train)
    if isinstance(known[0], str) and test is not None and test.values is None:
        test = replace(test, values=test.names)
    held_out = [] if test is None else _met(test)
    if unknown := [value for value in held_out if value not in learnt]:
        assert test is not None
        raise DataError(
            f"Labels out of range: {test.name} holds label {unknown[0]}, which is not among the training "
            f"data's: {in_words(known)}.{of_other_kind(unknown[0], known)}"
        )
    if known == list(range(len(known))) and not isinstance(known[0], bool):
        n, said = len(known), _many(known, len(train))
        return (
            replace(train, num_classes=n, note=said),
            None if test is None else replace(test, num_classes=n),
        )
    numbered = [None if part is None else renumbered(part, known) for part in (train, test)]
    assert numbered[0] is not None
    return numbered[0], numbered[1]


def renumbered(arrays: Arrays, values: Sequence[Any]) -> Arrays:
    """Labels as places in `values`, which must hold all of them."""
    place = {value: i for i, value in enumerate(values)}
    labels, inverse = arrays.targets.unique(return_inverse=True)
    places = torch.tensor([place[arrays.value(label)] for label in labels.tolist()])
    return replace(
        arrays,
        targets=places[inverse],
        values=tuple(values),
        names=tuple(map(str, values)),
        num_classes=len(values),
        note=note(values, len(arrays)),
    )


def share(parts: list[tuple[Arrays, Arrays]]) -> list[tuple[Arrays, Arrays]]:
    """Number the labels of data sets that share their outputs alike in all of them.

    The same value or name is the same class everywhere. Lists of classes with nothing in common (digits
    in one, clothes in the next) and classes that `subset=` ordered share outputs by place.

    Raises:
        DataError: If labels are words in some and numbers in others.
    """
    trains = [train for train, _ in parts]
    if not trains[0].discrete:
        return parts
    if len({train.names for train in trains}) == 1 and not any(train.values for train in trains):
        return parts
    values = [_all_values(train) for train in trains]
    union = list(dict.fromkeys(value for some in values for value in some))
    if not any(train.values for train in trains) and (
        len(union) == sum(map(len, values))
        or any(train.chosen or train.names is None for train in trains)
    ):
        return [(replace(train, names=None), replace(test, names=None)) for train, test in parts]
    words = [isinstance(some[0], str) for some in values]
    if any(words) and not all(words):
        one, other = trains[words.index(True)], trains[words.index(False)]
        raise DataError(
            f"{one.name} has words as labels, {other.name} has numbers, and their tasks share outputs. "
            "Give words or numbers in both, or set scenario=class."
        )
    if any(train.values for train in trains):
        union = sorted(union)
    return [_renumbered_pair(pair, union) for pair in parts]


def in_words(values: Sequence[Any]) -> str:
    """Values in a few words: `1, 2, 255`, `1 to 10`, or the first and last of many."""
    whole = all(isinstance(value, int) for value in values)
    if whole and len(values) > 2 and values[-1] - values[0] == len(values) - 1:
        return f"{values[0]} to {values[-1]}"
    if len(values) <= 8:
        return ", ".join(map(str, values))
    first = ", ".join(map(str, values[:4]))
    return f"{first}, ... {values[-1]} ({len(values):,} in all)"


def of_other_kind(value: Any, known: Sequence[Any]) -> str:
    """That a class is a number and those known are words, or the other way round; else nothing."""
    if isinstance(value, str) == isinstance(known[0], str):
        return ""
    kinds = ("word", "numbers") if isinstance(value, str) else ("number", "words")
    return f" The former is a {kinds[0]}, the latter are {kinds[1]}: convert one of them."


def _met(arrays: Arrays) -> list[Any]:
    """The values that occur, sorted."""
    return [arrays.value(label) for label in arrays.targets.unique().tolist()]


def _all_values(arrays: Arrays) -> list[Any]:
    if arrays.values is not None:
        return list(arrays.values)
    if arrays.names is not None:
        return list(arrays.names)
    return list(range(arrays.num_classes or int(arrays.targets.max()) + 1))


def _as_declared(train: Arrays, test: Arrays) -> Arrays:
    """Held-out labels by the training data's list of classes."""
    assert train.names is not None
    if test.values is not None and isinstance(test.values[0], bool):
        test = replace(test, values=None)
    if test.names is None and test.values is None:
        check_labels(test.targets, len(train.names), test.name, whose=train.name)
    elif test.names != train.names:
        test = replace(test, values=test.values or test.names)
        if unknown := [value for value in _met(test) if value not in train.names]:
            raise DataError(
                f"{test.name} holds the class {unknown[0]}, which is not among the training data's: "
                f"{in_words(train.names)}."
            )
        test = renumbered(test, train.names)
    return replace(test, names=train.names, num_classes=len(train.names), values=None, note=None)


def _refuse_amounts(values: list[Any], arrays: Arrays) -> None:
    if len(values) > _MANY and len(values) > len(arrays) / 2:
        words = isinstance(values[0], str)
        instead = "" if words else "floats for regression (targets.astype('float32')), or "
        raise DataError(
            f"The targets of {arrays.name} are {len(values):,} different {'words' if words else 'integers'} "
            f"in {len(arrays):,} rows: hardly classes. Give {instead}fewer classes."
        )


def note(values: Sequence[Any], rows: int, *, first: int = 0) -> str:
    """A remark on how labels of these values are numbered, from `first` on, and on suspicious ones."""
    last = first + len(values) - 1
    if len(values) == 1:
        said = f"label {values[0]} is numbered {first}"
    else:
        to = "to" if len(values) > 2 else "and"
        said = f"labels {in_words(values)} are numbered {first} {to} {last}"
    if isinstance(values[0], (str, bool)):
        return said
    # A segmentation's border or a missing label: learning it as a class is seldom what is meant.
    marks = [value for value in values if value in _IGNORED]
    rest = [value for value in values if value not in _IGNORED]
    contiguous = len(rest) > 1 and rest[-1] - rest[0] == len(rest) - 1
    if marks and contiguous:
        verb = "often mark rows" if len(marks) > 1 else "often marks rows"
        said += f"; {in_words(marks)} {verb} to be ignored, but here they are learnt like any other"
    many = _many(values, rows)
    return f"{said}; {many}" if many else said


def _many(values: Sequence[Any], rows: int) -> str | None:
    if len(values) <= 20 or len(values) <= rows / 2:
        return None
    return f"{len(values):,} different labels in {rows:,} rows: give floats if they are amounts (regression)"


def _renumbered_pair(pair: tuple[Arrays, Arrays], union: list[Any]) -> tuple[Arrays, Arrays]:
    """Both parts of one data set, numbered by `union`, which holds their labels among others."""
    values = tuple(_all_values(pair[0]))
    train, test = (renumbered(replace(part, values=values), union) for part in pair)
    if union != list(range(len(union))) or isinstance(union[0], bool):
        return train, test
    bare: dict[str, Any] = {"names": None, "values": None, "note": None}
    return replace(train, **bare), replace(test, **bare)


def same_label(parts: list[Tensor]) -> bool:
    """Whether every row of every part has the same class."""
    first = parts[0][0]
    return all(bool((targets == first).all()) for targets in parts)

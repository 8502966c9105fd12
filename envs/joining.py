"""Joins several data sets: their held-out parts, their classes, their rows in one table."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..replay import DataError, LazyColumn, Spec, Table
from ..replay.storage import joined as joined_columns
from ..replay.tree import leaves, zip_trees
from .arrays import Arrays, held_out_fifth, take_rows
from .numbering import note, same_label


def with_held_out(train: Arrays, test: Arrays | None) -> tuple[Arrays, Arrays]:
    """Training and held-out data; without `test`, a fixed fifth of the rows is held out."""
    if test is not None:
        return train, test
    if any(isinstance(c, LazyColumn) and c.in_turn for c in leaves(train.inputs)):
        raise DataError(
            f"{train.name} can only be read in turn, and holding some of its rows out would read all of them "
            "at each evaluation. Give test_dataset=, or set storage=mmap."
        )
    if train.discrete:
        # Counted before the split: a class may have all of its rows held out.
        train.num_classes = num_classes(train)
    kept, held_out = held_out_fifth(train)
    # The note of the training part covers both.
    return take_rows(train, kept), replace(take_rows(train, held_out), note=None)


def num_classes(arrays: Arrays) -> int:
    return max(arrays.num_classes or 0, int(arrays.targets.max()) + 1)


def numbered_in_turn(pairs: list[tuple[Arrays, Arrays]]) -> list[tuple[Arrays, Arrays]]:
    """Number the classes of each data set after those of the previous ones."""
    parts, first, names = [], 0, ()
    named = any(train.names is not None for train, _ in pairs)
    for pair in pairs:
        n = num_classes(pair[0])
        if (highest := int(pair[1].targets.max())) >= n:
            raise DataError(
                f"Labels out of range: {pair[1].name} holds label {highest}, but the training data has "
                f"classes 0 to {n - 1}."
            )
        names = (*names, *(pair[0].names or map(str, range(n)))) if named else ()
        train, test = (
            replace(
                part,
                targets=part.targets + first,
                num_classes=first + n,
                names=names or None,
                note=_numbered_from(first, part),
            )
            for part in pair
        )
        parts.append((train, test))
        first += n
    return parts


def _numbered_from(first: int, part: Arrays) -> str | None:
    """The remark on labels that are numbered after those of the previous data sets, or None."""
    n = 0 if part.values is None else len(part.values)
    if part.values is None or part.values == tuple(range(first, first + n)):
        return part.note if n == 0 else None
    return note(part.values, len(part), first=first)


def notes_on_labels(train: list[Arrays]) -> list[str]:
    """Remarks on how labels are numbered, for the run's header."""
    said = [(f"task {i}: ", part.note) for i, part in enumerate(train) if part.note is not None]
    if len({text for _, text in said}) == 1 and len(said) == len(train):
        said = [("", said[0][1])]  # One data set, or tasks that share outputs: the same for all.
    return [f"{task}{text}" for task, text in said]


def single_class(parts: list[Arrays]) -> str | None:
    """The name of the only class of all rows, or of all pixels; None: there are several, or values."""
    if parts[0].kind == "pixels":
        if any(part.num_classes != 1 for part in parts):
            return None
        label = 0
    elif parts[0].discrete and same_label([part.targets for part in parts]):
        label = int(parts[0].targets[0])
    else:
        return None
    return parts[0].names[label] if parts[0].names else str(label)


def joined(parts: list[Arrays]) -> Table:
    """One table with the rows of all parts in turn.

    Raises:
        DataError: If one of several is not in memory.
    """
    if len(parts) == 1:
        return parts[0].table()
    for part in parts:
        if not part.in_memory:
            raise DataError(
                f"{part.name} is read from its source at each use, but a sequence of data sets must be held "
                "in memory: replace random transforms with aug=, or give fewer rows."
            )
    obs = zip_trees(lambda *columns: joined_columns(columns), *(part.inputs for part in parts))
    return Table(obs=obs, label=torch.cat([part.targets for part in parts]))


def exact_targets(parts: list[Arrays], spec: Spec) -> Tensor | None:
    """Values to be predicted as float64 `[N, ...]`, if storing rounds them; else None."""
    values = [part.targets for part in parts if not part.discrete]
    if spec.discrete or all(part.dtype == spec.action.dtype for part in values):
        return None
    return torch.cat(values).to(torch.float64)

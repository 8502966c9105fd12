"""Reads a data set of any form as arrays."""

from __future__ import annotations

from pathlib import Path as PathOfFile
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from ..replay import DataError, Ragged
from ..replay.mapped import Mapped
from ..replay.spec import TargetKind
from ..replay.storage import TableField
from ..replay.tree import Path, map_paths, map_tree, walk
from .arrays import Arrays, Headings
from .declared import alterations, class_names, largest_value, pixel_names
from .decoded import Cache
from .fingerprint import of_files
from .forms import form, is_array, is_image
from .headings import headings
from .images import Pictures
from .in_memory import columns, files
from .inputs import called
from .item import plain_dict
from .items import decode
from .labels import (
    as_targets,
    check_finite,
    check_labels,
    label_names,
    read_targets,
    zeros_and_ones,
)
from .layout import channels_first
from .lengths import ALONE, check_targets, sequences, stored_values
from .mapping import in_place, on_disk
from .not_a_data_set import refuse
from .numbering import in_words
from .numbers import as_tensor
from .pixel_masks import image_size
from .statistics import chunks
from .streams import StreamRows

_FEW = 20  # Up to so many different whole floats may be meant as classes.


def read(
    source: Any,
    *,
    name: str,
    pictures: Pictures | None = None,
    channels: str | None = None,
    wanted: TargetKind | None = None,
    cache: Cache | None = None,
) -> Arrays:
    """The arrays of a data set, checked; labels are unchanged (`number_labels` makes them 0 to n - 1).

    Args:
        source: A map-style `Dataset`, a list of items `(input, target)`, or a pair of arrays, data
            frames or lists of numbers `(inputs, targets)`. An input may be a dict of several, and so may
            the inputs of a pair.
        name: What errors call it.
        pictures: How decoded images become tensors, as settled by the training part; None: not settled yet.
        channels: Where images in arrays have their channels: "first" (`[N, C, H, W]`) or "last"
            (`[N, H, W, C]`); None: inferred from their shape.
        wanted: What targets of 0 and 1 are, as the loss or the training part says; None: not known.
        cache: Where picture files are kept decoded; None: nowhere.

    Raises:
        DataError: If it is empty, holds NaN, its labels are not classes or values, its items
            differ in shape or in the keys of their inputs, or it is not a data set.
    """
    pictures = pictures or Pictures()
    kept = None if cache is None else _kept_decoded(source, name, pictures, cache)
    inputs, targets = kept or _parts(source, name, pictures, channels, cache)
    labels = headings(targets)
    check_targets(inputs, targets, name)
    targets, words = read_targets(targets, name)
    wanted = None if words and isinstance(words[0], str) else wanted
    flat, given = targets.dim() == 1, targets.dtype
    if targets.dim() == 0:
        raise DataError(f"The targets of {name} are a single number. Give one for each row.")
    # Tensors may be on a device already; the run decides where rows are kept (placing.py).
    inputs, targets = map_tree(_on_host, inputs), targets.cpu()
    _check_rows(inputs, targets, name)
    checked = as_targets(targets, name, wanted, image_size(inputs))
    if cache is not None and cache.rows is not None and isinstance(inputs, Ragged):
        cache.notes.append(f"sequences of {name} are in memory, whatever storage= says")
    arrays = Arrays(inputs, checked, name, high=largest_value(source))
    arrays.headings = _headings(source) if form(source) == "pair" else None
    arrays.target_headings = labels
    arrays.alterations = alterations(source, name)
    if (found := files(source)) is not None:
        named = found.paths if found.count is None else found.listing
        arrays.files = of_files(found.root, named)
    if arrays.discrete:
        _name_classes(arrays, class_names(source), words)
    else:
        arrays.flat, arrays.note = flat, _note(arrays.targets, given=given, wanted=wanted)
    if arrays.kind == "labels":
        arrays.names = label_names(class_names(source), labels, arrays.targets.shape[1])
    if arrays.kind == "pixels":
        arrays.names = pixel_names(source)
    return arrays


def _headings(source: Any) -> Headings:
    """The columns' names of the data frames that are the inputs of a pair."""
    found: Headings = map_tree(headings, plain_dict(source[0], ""))
    return found


def _check_rows(inputs: TableField, targets: Tensor, name: str) -> None:
    """Raise DataError for no rows, empty rows, NaN, or another number of inputs than of targets."""
    columns = {f"inputs{called(path)}": column for path, column in walk(inputs)}
    if len(targets) == 0 or any(len(column) == 0 for column in columns.values()):
        raise DataError(f"{name} is empty: there is nothing to learn from.")
    for what, column in columns.items():
        _check_lengths(column, targets, name, what)
    for what, values in (*columns.items(), ("targets", targets)):
        if 0 in values.shape:
            shape = list(values.shape)
            raise DataError(f"The {what} of {name} have shape {shape}: their rows are empty.")
    for what, column in columns.items():
        if isinstance(column, Ragged) and column is not inputs:
            raise DataError(f"The {what} of {name} differ in length. {ALONE}")
        if isinstance(column, Tensor | Ragged):
            check_finite(stored_values(column)[0], f"{what} of {name}")
        elif isinstance(column, Mapped) and column.dtype.is_floating_point:
            first = 0
            for rows in chunks([column]):
                check_finite(rows, f"{what} of {name}", first=first)
                first += len(rows)


def _name_classes(
    arrays: Arrays, names: tuple[str, ...] | None, words: tuple[Any, ...] | None
) -> None:
    """Set what classes are called: by the data set's own list, or by the words that they came as."""
    arrays.values, arrays.names = words, names
    if names and words and isinstance(words[0], str):
        _number_as_listed(arrays, words)
    if names:
        arrays.num_classes, arrays.values = len(names), None
        check_labels(arrays.targets, arrays.num_classes, arrays.name)


def _kept_decoded(
    source: Any, name: str, pictures: Pictures, cache: Cache
) -> tuple[TableField, Any] | None:
    """Inputs and targets of a data set whose pictures are decoded once; None: it is read in another way."""
    found = files(source)
    column = None if found is None else cache.column(found, name, pictures)
    return None if found is None or column is None else (column, found.labels)


def _parts(
    source: Any, name: str, pictures: Pictures, channels: str | None, cache: Cache | None
) -> tuple[TableField, Any]:
    """Inputs, with images channels-first, and targets in any form."""
    kind, folders = form(source), None if cache is None else cache.rows
    if kind == "pair":
        inputs, targets = source
        targets = list(targets) if isinstance(targets, (tuple, range)) else targets

        _refuse_several(inputs, targets, name)

        def column(path: Path, values: Any) -> TableField:
            return _column(values, targets, name, path, pictures.of(path), channels, folders)

        return map_paths(column, plain_dict(inputs, f"The inputs of {name} are")), targets
    if (held := columns(source)) is not None:
        if held.pictures:
            rows = held.inputs
            return on_disk(rows, folders) if folders else rows, held.targets
        if folders is not None and (mapped := in_place(held.inputs, f"The input of {name}")):
            return mapped.converted(lambda rows: channels_first(rows, name, channels)), held.targets
        rows = as_tensor(held.inputs, f"The input of {name}")
        return channels_first(rows, name, channels), held.targets
    if cache is not None and isinstance(source, IterableDataset) and folders is not None:
        cache.report.say(f"reading {name} to its end once, for its length and its targets")
        source = StreamRows(source, name, cache.window)
    elif kind != "items":
        refuse(source, name)
    return decode(source, name, pictures, channels, folders)


def _column(
    inputs: Any,
    targets: Any,
    name: str,
    path: Path,
    pictures: Pictures,
    channels: str | None,
    folders: list[PathOfFile] | None,
) -> TableField:
    """One array, or list of pictures, of a pair `(inputs, targets)`; or the part of a dict at `path`."""
    if isinstance(inputs, (list, tuple)) and len(inputs) and is_image(inputs[0]):
        _check_lengths(inputs, targets, name, f"inputs{called(path)}")
        items = list(zip(inputs, targets, strict=True))
        return decode(items, name, pictures, channels, folders)[0]
    what = f"The input{called(path)} of {name}"
    if folders is not None and (mapped := in_place(inputs, what)) is not None:
        part = called(path)
        return mapped.converted(lambda rows: channels_first(rows, name, channels, part=part))
    if (rows := sequences(inputs, what)) is not None:
        return rows
    rows = as_tensor(inputs, what)
    if rows.dim() == 0:
        raise DataError(f"{what} is a single number. Give one row per target.")
    return channels_first(rows, name, channels, part=called(path))


def _refuse_several(inputs: Any, targets: Any, name: str) -> None:
    """Raise DataError for a list or a tuple of several inputs, as Keras takes them, which have no names."""
    arrays = isinstance(inputs, (list, tuple)) and len(inputs) > 1 and all(map(is_array, inputs))
    if arrays and len(inputs) != len(targets) and all(len(x) == len(targets) for x in inputs):
        raise DataError(
            f"The inputs of {name} are a {type(inputs).__name__} of {len(inputs)} arrays. Several inputs are "
            "a dict, with names of your choice: ({'first': a, 'second': b}, targets)."
        )


def _on_host(column: Any) -> Any:
    return column.cpu() if isinstance(column, Tensor) else column


def _check_lengths(inputs: Any, targets: Any, name: str, what: str) -> None:
    if len(inputs) != len(targets):
        raise DataError(f"{name} has {len(inputs)} {what} but {len(targets)} targets.")


def _number_as_listed(arrays: Arrays, words: tuple[str, ...]) -> None:
    """Turn words into their places in the data set's own list of classes."""
    names = arrays.names or ()
    if unknown := [word for word in words if word not in names]:
        raise DataError(
            f"{arrays.name} holds the label {unknown[0]!r}, which is not in its attribute `classes`: "
            f"{in_words(names)}."
        )
    places = torch.tensor([names.index(word) for word in words])
    arrays.targets, arrays.values = places[arrays.targets], None


def _note(targets: Tensor, *, given: torch.dtype, wanted: TargetKind | None) -> str | None:
    """A remark on numbers that may have been meant as something else, or None.

    Args:
        given: The dtype in which they came.
        wanted: What the user said that they are, or None.
    """
    if wanted is not None or not given.is_floating_point:
        return None
    if targets.dim() > 2 and zeros_and_ones(targets):
        return (
            "0 and 1 given as floats are learnt as values (regression); integers of the images' size are "
            "classes of pixels"
        )
    if targets.dim() != 2:
        return None
    if targets.dtype == torch.bool:
        return (
            f"0 and 1 in {targets.shape[1]} columns are learnt as several labels per row; loss=MSELoss "
            "learns them as values (regression)"
        )
    if targets.shape[1] > 1:
        return None
    # A thousand rows first: most data has a fraction there, and needs no second look.
    whole = all(torch.equal(part, part.round()) for part in (targets[:1000], targets))
    if not whole or len(targets.unique()) > _FEW:
        return None
    return "whole numbers given as floats are learnt as values (regression); integers are classes"

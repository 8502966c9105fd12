"""Reads a data set of any form as arrays."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..replay import DataError, LazyColumn
from ..replay.spec import TargetKind
from .arrays import Arrays
from .declared import alterations, class_names, largest_value
from .forms import form, is_image
from .images import Pictures
from .in_memory import columns
from .items import decode
from .labels import as_targets, check_finite, check_labels, label_names, read_targets
from .layout import channels_first
from .not_a_data_set import refuse
from .numbering import in_words
from .numbers import as_tensor

_FEW = 20  # Up to so many different whole floats may be meant as classes.


def read(
    source: Any,
    *,
    name: str,
    pictures: Pictures | None = None,
    channels: str | None = None,
    wanted: TargetKind | None = None,
) -> Arrays:
    """The arrays of a data set, checked; labels are unchanged (`number_labels` makes them 0 to n - 1).

    Args:
        source: A map-style `Dataset`, a list of items `(input, target)`, or a pair of arrays, data
            frames or lists of numbers `(inputs, targets)`.
        name: What errors call it.
        pictures: How decoded images become tensors, as settled by the training part; None: not settled yet.
        channels: Where images in arrays have their channels: "first" (`[N, C, H, W]`) or "last"
            (`[N, H, W, C]`); None: inferred from their shape.
        wanted: What targets of 0 and 1 are, as the loss or the training part says; None: not known.

    Raises:
        DataError: If it is empty, holds NaN, its labels are not classes or values, its items
            differ in shape, or it is not a data set.
    """
    inputs, targets = _parts(source, name, pictures or Pictures(), channels)
    columns = getattr(targets, "columns", None)  # A data frame's.
    targets, words = read_targets(targets, name)
    wanted = None if words and isinstance(words[0], str) else wanted
    flat, given = targets.dim() == 1, targets.dtype
    if targets.dim() == 0:
        raise DataError(f"The targets of {name} are a single number. Give one for each row.")
    # Tensors may be on a device already; the run decides where rows are kept (placing.py).
    inputs, targets = inputs.cpu() if isinstance(inputs, Tensor) else inputs, targets.cpu()
    if len(targets) == 0 or len(inputs) == 0:
        raise DataError(f"{name} is empty: there is nothing to learn from.")
    _check_lengths(inputs, targets, name)
    for what, values in (("inputs", inputs), ("targets", targets)):
        if 0 in values.shape:
            shape = list(values.shape)
            raise DataError(f"The {what} of {name} have shape {shape}: their rows are empty.")
    if isinstance(inputs, Tensor):
        check_finite(inputs, f"inputs of {name}")
    arrays = Arrays(inputs, as_targets(targets, name, wanted), name, high=largest_value(source))
    arrays.alterations = alterations(source, name)
    if arrays.discrete:
        arrays.values, arrays.names = words, class_names(source)
        if arrays.names and words and isinstance(words[0], str):
            _number_as_listed(arrays, words)
        if arrays.names:
            arrays.num_classes, arrays.values = len(arrays.names), None
            check_labels(arrays.targets, arrays.num_classes, name)
    else:
        arrays.flat, arrays.note = flat, _note(arrays.targets, given=given, wanted=wanted)
    if arrays.kind == "labels":
        arrays.names = label_names(class_names(source), columns, arrays.targets.shape[1])
    return arrays


def _parts(
    source: Any, name: str, pictures: Pictures, channels: str | None
) -> tuple[Tensor | LazyColumn, Any]:
    """Inputs, with images channels-first, and targets in any form."""
    kind = form(source)
    if kind == "pair":
        inputs, targets = source
        if isinstance(inputs, (list, tuple)) and len(inputs) and is_image(inputs[0]):
            _check_lengths(inputs, targets, name)
            return decode(list(zip(inputs, targets, strict=True)), name, pictures, channels)
        targets = list(targets) if isinstance(targets, (tuple, range)) else targets
        rows = _rows(as_tensor(inputs, f"The input of {name}"), name)
        return channels_first(rows, name, channels), targets
    if (held := columns(source)) is not None:
        if held.pictures:
            return held.inputs, held.targets
        rows = as_tensor(held.inputs, f"The input of {name}")
        return channels_first(rows, name, channels), held.targets
    if kind != "items":
        refuse(source, name)
    return decode(source, name, pictures, channels)


def _check_lengths(inputs: Any, targets: Any, name: str) -> None:
    if len(inputs) != len(targets):
        raise DataError(f"{name} has {len(inputs)} inputs but {len(targets)} targets.")


def _rows(inputs: Tensor, name: str) -> Tensor:
    if inputs.dim() == 0:
        raise DataError(f"The input of {name} is a single number. Give one row per target.")
    return inputs


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
    if targets.dim() != 2 or wanted is not None or not given.is_floating_point:
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

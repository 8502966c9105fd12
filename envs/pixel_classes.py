"""Numbers the classes of pixels, alike in training and held-out data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..replay import DataError, Space
from .arrays import Arrays
from .pixel_masks import IGNORED, MASK


def number_pixels(train: Arrays, test: Arrays | None) -> tuple[Arrays, Arrays | None]:
    """Both parts with classes 0 to n - 1, and 255 for pixels to be ignored.

    Classes stay as they are if the data set lists its `classes`, or they are 0 to n - 1 already. Otherwise
    they are numbered in sorted order. Where 255 is all there is beside one class, as in masks of black and
    white, it is the second class.

    Raises:
        DataError: If all pixels are to be ignored, or a class is not in the list or in the training data.
    """
    for part in (train, test):
        if part is not None and bool((part.targets == IGNORED).all()):
            raise DataError(
                f"All pixels of {part.name} are labelled {IGNORED}, which marks pixels to be ignored."
            )
    found = _values(train)
    classes = [value for value in found if value != IGNORED]
    white = len(classes) == 1 and IGNORED in found and train.names is None
    values = found if white else classes
    if train.names is not None:
        values = list(range(len(train.names)))
        if classes[-1] >= len(values):
            raise DataError(
                f"Labels out of range: {train.name} holds pixels of class {classes[-1]}, but lists "
                f"{len(values)} classes (0 to {len(values) - 1}) in its attribute `classes`."
            )
    parts = [None if part is None else _numbered(part, values, white) for part in (train, test)]
    assert parts[0] is not None
    return parts[0], parts[1]


def numbered_as(part: Arrays, values: Sequence[int]) -> Arrays:
    """Masks that come after training, with the numbers that a run gave its classes.

    Args:
        values: The class that each output stands for.

    Raises:
        DataError: If a class is not among them.
    """
    return _numbered(part, list(values), IGNORED in values)


def _numbered(part: Arrays, values: list[int], white: bool) -> Arrays:
    known = {*values, *([] if white else [IGNORED])}
    if unknown := [value for value in _values(part) if value not in known]:
        listed = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
        raise DataError(
            f"Labels out of range: {part.name} holds pixels of class {unknown[0]}, which is not among the "
            f"training data's: {listed}."
        )
    part = replace(part, num_classes=len(values))
    if values == list(range(len(values))):
        return part
    places = torch.full((IGNORED + 1,), IGNORED, dtype=MASK)
    places[torch.tensor(values)] = torch.arange(len(values), dtype=MASK)
    said = f"classes {', '.join(map(str, values[:8]))}{', ...' * (len(values) > 8)} of pixels are numbered "
    return replace(
        part,
        targets=_mapped(part.targets, places),
        values=tuple(values),
        names=tuple(map(str, values)),
        note=f"{said}0 to {len(values) - 1}",
    )


def _mapped(masks: Tensor, places: Tensor) -> Tensor:
    """The masks with each number replaced by its place; a part at a time, since an index takes 8 bytes."""
    return torch.cat([places[part.long()] for part in masks.split(64)])


def _values(arrays: Arrays) -> list[int]:
    """The classes of pixels that occur, sorted; 255 among them."""
    counts = sum(
        part.flatten().bincount(minlength=IGNORED + 1) for part in arrays.targets.split(64)
    )
    assert isinstance(counts, Tensor)
    return counts.nonzero().flatten().tolist()


def pixel_space(train: list[Arrays]) -> Space:
    """The space of a class for each pixel, `(n, H, W)`.

    Raises:
        DataError: If data sets that share their outputs number their classes differently.
    """
    first = train[0]
    for other in train[1:]:
        if other.values != first.values or other.names != first.names:
            raise DataError(
                f"{first.name} and {other.name} share their outputs, but number the classes of their pixels "
                "differently. Give masks with the same numbers in both."
            )
    n = max(part.num_classes or 0 for part in train)
    height, width = first.targets.shape[1:]
    return Space((n, height, width), MASK, 0, n - 1, discrete=True, names=first.names)

"""Targets with a class for each pixel: masks as they are read, resized and numbered."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..replay import DataError, Space
from .forms import is_image

if TYPE_CHECKING:
    from .arrays import Arrays
    from .images import Pictures

IGNORED = Space.ignored
_INDEXED = ("1", "L", "P")  # Modes of pictures whose pixels are numbers of classes.
_FLAT = torch.uint8


def mask_of(item: Any, pictures: Pictures, name: str) -> Any:
    """An item's target; a mask of a picture in the size that the picture is resized to.

    Masks are resized by nearest neighbour: numbers of classes cannot be mixed.

    Raises:
        DataError: If a mask is in colour, or not as large as its picture.
    """
    image, target = item
    if is_image(target):
        if target.mode not in _INDEXED:
            raise DataError(
                f"The target of {name} is a picture of mode {target.mode}. A mask holds the number of each "
                "pixel's class: give it in mode L or P, or as integers [H, W]."
            )
        target = np.array(target)
    # Several inputs are no single picture; other targets are left alone.
    if not is_image(image) or not _is_mask(target):
        return target
    mask = np.asarray(target)
    mask = mask[0] if mask.ndim == 3 else mask
    if mask.shape != (size := (image.height, image.width)):
        raise DataError(
            f"A mask of {name} has {mask.shape[0]} x {mask.shape[1]} pixels (height x width), and its "
            f"picture {size[0]} x {size[1]}. They must be equal."
        )
    if pictures.size is None or image.size == pictures.size:
        return mask
    width, height = pictures.size
    # The pixel whose area the centre of the new one falls into.
    rows = ((np.arange(height) + 0.5) * (mask.shape[0] / height)).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * (mask.shape[1] / width)).astype(np.int64)
    return mask[rows[:, None], columns[None, :]]


def _is_mask(target: Any) -> bool:
    """Whether a target is an array of integers `[H, W]` or `[1, H, W]`."""
    shape: tuple[int, ...] = tuple(getattr(target, "shape", ()))
    dtype = str(getattr(target, "dtype", ""))
    single = len(shape) == 2 or (len(shape) == 3 and shape[0] == 1)
    return single and "float" not in dtype and min(shape) > 0


def image_size(inputs: object) -> tuple[int, ...] | None:
    """Height and width of the inputs, if they are images `[N, C, H, W]`."""
    shape = tuple(getattr(inputs, "shape", ()))
    return shape[2:] if len(shape) == 4 else None


def as_masks(targets: Tensor, size: tuple[int, ...] | None, name: str) -> Tensor | None:
    """Integers or booleans of the images' size as uint8 `[N, H, W]`; None: they are something else.

    Args:
        targets: `[N, H, W]` or `[N, 1, H, W]`.
        size: Height and width of the images; None: inputs are no images.

    Raises:
        DataError: If they are integers of another size, or a class is out of range.
    """
    if targets.is_floating_point() or targets.dim() not in (3, 4):
        return None
    masks = targets[:, 0] if targets.dim() == 4 and targets.shape[1] == 1 else targets
    if masks.dim() != 3 or size is None:
        return None
    if tuple(masks.shape[1:]) != size:
        raise DataError(
            f"The targets of {name} are integers of {masks.shape[1]} x {masks.shape[2]} (height x width), "
            f"and its images have {size[0]} x {size[1]} pixels. A class for each pixel needs the same size."
        )
    low, high = int(masks.min()), int(masks.max())
    if low < 0 or high > IGNORED:
        raise DataError(
            f"The masks of {name} hold {low if low < 0 else high}; classes of pixels are 0 to {IGNORED - 1}, "
            f"and {IGNORED} marks pixels to be ignored."
        )
    return masks.to(_FLAT)


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
    places = torch.full((IGNORED + 1,), IGNORED, dtype=_FLAT)
    places[torch.tensor(values)] = torch.arange(len(values), dtype=_FLAT)
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
    return Space((n, height, width), _FLAT, 0, n - 1, discrete=True, names=first.names)

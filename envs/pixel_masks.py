"""Reads masks, which hold a class for each pixel: checks them, and resizes them with their pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..replay import DataError, Space
from .forms import is_image

if TYPE_CHECKING:
    from .images import Pictures

IGNORED = Space.ignored
MASK = torch.uint8  # The dtype in which masks are kept.
_INDEXED = ("1", "L", "P")  # Modes of pictures whose pixels are numbers of classes.


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
    # Several inputs are not one picture; targets other than masks are left alone.
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
        size: Height and width of the images; None: the inputs are not images.

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
    return masks.to(MASK)

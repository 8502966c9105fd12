"""Augmentation of images whose pixels have classes: what moves pixels moves the masks alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...replay import ConfigError
from ..settings.object_names import class_name
from .augmentation import Augmentation, each_step

# They move whole pixels and mix none, so that a mask as a further channel stays exact.
_MOVE = ("RandomCrop", "RandomHorizontalFlip", "RandomVerticalFlip")
# They change colours and leave every pixel in its place.
_COLOUR = (
    *("ColorJitter", "GaussianBlur", "GaussianNoise", "Grayscale", "RandomAdjustSharpness"),
    *("RandomAutocontrast", "RandomChannelPermutation", "RandomEqualize", "RandomErasing"),
    *("RandomGrayscale", "RandomInvert", "RandomPhotometricDistort", "RandomPosterize"),
    "RandomSolarize",
)


class AlignedAugmentation(Augmentation):
    """Applies several steps in turn to images, and those that move pixels to their masks too.

    Pixels that a crop adds are to be ignored.

    Args:
        steps: As for `Augmentation`.
        ignored: The label of pixels to be ignored, int.

    Attributes:
        masks: int64 `[B, H, W]`, moved along by the next call; None: there are none.
        moves: Whether any step moves pixels.

    Raises:
        ConfigError: If a step may move pixels in a way that masks cannot follow.
    """

    def __init__(self, steps: list[Callable[[Tensor], Tensor]], *, ignored: int):
        super().__init__(steps)
        self.masks: Tensor | None = None
        self._ignored = ignored
        for step in steps:
            _check(step)
        self.moves = any(_moves(step) for step in steps)

    def on_bytes(self, images: Tensor) -> Tensor:
        return self._applied(self._first, images)

    def on_floats(self, images: Tensor) -> Tensor:
        return self._applied(self._rest, images)

    def _applied(self, steps: Sequence[Callable[[Tensor], Tensor]], images: Tensor) -> Tensor:
        for step in steps:
            masks = self.masks
            if masks is None or not _moves(step):
                images = step(images)
                continue
            # Bytes could not hold the classes.
            wide = images if images.is_floating_point() else images.int()
            # One more than the label: a crop fills its border with 0.
            channel = (masks + 1).to(wide.dtype).unsqueeze(1)
            both = step(torch.cat([wide, channel], 1))
            images = both[:, :-1].contiguous().to(images.dtype)
            moved = both[:, -1].round().long() - 1
            self.masks = torch.where(moved < 0, self._ignored, moved)
        return images


def _moves(step: object) -> bool:
    return class_name(step) in _MOVE


def _check(step: object) -> None:
    inner = list(each_step([step]))
    inside = any(part is not step for part in inner)
    for part in inner:
        name = class_name(part)
        fill = getattr(part, "fill", 0) if name == "RandomCrop" else 0
        known = _ours_or_torchvision(part) and (name in _COLOUR or (name in _MOVE and not inside))
        if known and fill in (0, None):
            continue
        raise ConfigError(
            f"aug={name} may move pixels, and their masks would stay where they are. With a class for each "
            f"pixel, aug= may be {', '.join(_MOVE)}, which move both alike (without fill=), or what only "
            "changes colours, such as ColorJitter. For anything else, return augmented copies of images and "
            "masks from the data set."
        )


def _ours_or_torchvision(step: object) -> bool:
    return type(step).__module__.startswith(("antelope.", "torchvision."))

"""Which observations are normalised by running statistics."""

from __future__ import annotations

from typing import Any

import torch

from ..replay import Space
from ..replay.tree import named_leaves


def normalized_shapes(space: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the observations to normalise, by their names in `named_leaves`.

    Images, choices and booleans are left out.

    >>> normalized_shapes({"arm": {"angle": Space((2,))}, "door": Space((3,), discrete=True)})
    {'arm/angle': (2,)}
    """
    parts = named_leaves(space).items()
    return {name: part.shape for name, part in parts if _is_measured(part)}


def _is_measured(space: Space) -> bool:
    if not space.numeric or space.dtype == torch.bool:
        return False
    # Only bytes up to 255 in three dimensions are images: RAM and board pieces from 0 to 6 are numbers.
    image = space.dtype == torch.uint8 and len(space.shape) == 3
    return not (image and (space.high is None or bool((torch.as_tensor(space.high) == 255).all())))

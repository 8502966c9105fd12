"""Which observations running statistics are kept of."""

from __future__ import annotations

from typing import Any

import torch

from ..replay import Space
from ..replay.tree import named_leaves


def normalized_shapes(space: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the observations that running statistics are kept of, by the names of `named_leaves`.

    Not of images, choices and truth values.

    >>> normalized_shapes({"arm": {"angle": Space((2,))}, "door": Space((3,), discrete=True)})
    {'arm/angle': (2,)}
    """
    parts = named_leaves(space).items()
    return {name: part.shape for name, part in parts if _is_measured(part)}


def _is_measured(space: Space) -> bool:
    if not space.numeric or space.dtype == torch.bool:
        return False
    # Bytes in one dimension, and boards with pieces from 0 to 6, are numbers.
    image = space.dtype == torch.uint8 and len(space.shape) == 3
    return not (image and (space.high is None or bool((torch.as_tensor(space.high) == 255).all())))

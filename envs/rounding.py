"""Warns once of observations whose differences are lost in float32, as which models receive them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from ..replay import Normalizer
from ..replay.tree import named_leaves, path_of

_LOOKED_AT, _ENOUGH = 200, 10  # Steps to look at; and fewest in a run that ends earlier.
# Share of a standard deviation that rounding may take, and the size from which it counts: a joint that
# stands still and trembles in its last digit needs no warning, a clock does.
_LOST, _LARGE = 1e-2, 2.0**16


class Rounding:
    """Watches the first observations of an environment whose dtype is wider than float32.

    Args:
        space: The observation space, or a tree of spaces.
        name: What the warning calls the environment.
    """

    def __init__(self, space: Any, name: str):
        self.name, self._left = name, _LOOKED_AT
        shapes = {name: s.shape for name, s in named_leaves(space).items() if _is_wide(s)}
        self._seen = Normalizer(shapes, num_envs=1, discount=1.0, obs=True, reward=False)

    def see(self, obs: Any) -> None:
        """Add observations `[N, *shape]`, or a dict of them; the last call checks them all."""
        if not self._left or not self._seen.moments:
            return
        self._seen.see(obs)
        self._left -= 1
        if not self._left:
            self._tell()

    def close(self) -> None:
        """End the run: check what was observed, if that was enough."""
        if 0 < self._left <= _LOOKED_AT - _ENOUGH:
            self._left = 0
            self._tell()

    def _tell(self) -> None:
        for part, moments in self._seen.moments.items():
            size, stddev = np.abs(moments.mean), np.sqrt(moments.variance)
            # float32 rounds by up to 2**-24 of a number's size.
            lost = (size >= _LARGE) & (stddev > 0) & (size * 2.0**-24 > _LOST * stddev)
            if lost.any():
                which = f"The observations {'/'.join(path_of(part))!r}" if part else "Observations"
                warnings.warn(
                    f"{which} of {self.name} lie so far from zero that float32, in which models receive "
                    "them, cannot tell them apart. normalize_obs=true subtracts their mean before they "
                    "are rounded.",
                    stacklevel=2,
                )


def _is_wide(space: Any) -> bool:
    """Whether values may have more digits than float32 holds."""
    return space.numeric and space.dtype in (torch.float64, torch.int64, torch.int32)

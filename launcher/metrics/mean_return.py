"""Mean return of episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mean_return(returns: Sequence[float], lengths: Sequence[int]) -> float:
    """Mean undiscounted return, in the environment's own units.

    Args:
        returns: `[episodes]`, the sum of rewards of each episode.
        lengths: `[episodes]`, in steps.

    >>> mean_return([1.0, 3.0], [10, 20])
    2.0
    """
    return float(np.mean(returns))

"""Standard deviation of episodes' returns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def return_stddev(returns: Sequence[float], lengths: Sequence[int]) -> float:
    """Population standard deviation of the returns, in the environment's own units.

    Args:
        returns: `[episodes]`, the sum of rewards of each episode.
        lengths: `[episodes]`, in steps.

    >>> return_stddev([1.0, 3.0], [10, 20])
    1.0
    """
    # Of the population: a single episode has 0, where the sample's would be NaN.
    return float(np.std(returns))

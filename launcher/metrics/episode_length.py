"""Mean length of episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def episode_length(returns: Sequence[float], lengths: Sequence[int]) -> float:
    """Mean length in steps.

    Args:
        returns: `[episodes]`, the sum of rewards of each episode.
        lengths: `[episodes]`, in steps.

    >>> episode_length([1.0, 3.0], [10, 20])
    15.0
    """
    return float(np.mean(lengths))

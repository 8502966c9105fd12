"""The matrix of scores, which shows the effect of each task on every other.

Row i holds the scores after learning task i, column j those on task j. Rows may end early
(`[[0.9], [0.6, 0.8]]`: only the tasks seen) or hold NaN for later tasks, and later tasks may have no row
yet: what is counted are the tasks learnt, one per row. More must be better (accuracy, return, R2).

Whatever is read from it has the scores' own unit. Returns of different sizes are not rescaled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

Matrix = Sequence[Sequence[float]] | np.ndarray
"""Scores `[tasks learnt][tasks]`."""


def scores_learnt(matrix: Matrix) -> np.ndarray:
    """The matrix as float64 `[tasks learnt, tasks learnt]`, NaN where a score is missing."""
    count = len(matrix)
    scores = np.full((count, count), np.nan)
    for i, row in enumerate(matrix):
        scores[i, : len(row)] = row[:count]
    return scores


def mean(values: Iterable[float]) -> float:
    """Their mean, summed exactly; NaN if there are none."""
    values = list(values)
    # `fsum` is exact, so that the order of the tasks cannot change the last digit.
    return math.fsum(values) / len(values) if values else math.nan

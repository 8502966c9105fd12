"""What a sequence of tasks did to the score of each: forgetting, transfer, the score when learnt.

All are read from one matrix: row i after learning task i, column j on task j. Rows may end early
(`[[0.9], [0.6, 0.8]]`: only the tasks seen) or hold NaN for tasks to come, and later tasks may have no
row yet: what is counted are the tasks learnt, one per row. More must be better (accuracy, return, R2).

All are in the scores' own units: of environments, in units of return. Tasks with returns of different
sizes are not rescaled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

Matrix = Sequence[Sequence[float]] | np.ndarray
"""Scores `[tasks learnt][tasks]`: row i after learning task i, column j on task j."""


def forgetting(matrix: Matrix) -> float:
    """How far, on average, each earlier task has fallen from its best.

        F = 1/(T-1) sum_{j<T} ( max_{j <= i < T} R_ij - R_Tj )

    A task's best is looked for from when it was learnt until the last task began, so that one that
    is better now than ever before counts as negative.

    Source: Chaudhry et al. (2018), https://arxiv.org/abs/1801.10112, eq. 3 and its mean.

    Returns:
        In the scores' units; in [-1, 1] for accuracies. NaN for fewer than two tasks, or where a
        score that it needs is missing.

    >>> round(forgetting([[0.9], [0.6, 0.8]]), 4)
    0.3
    """
    scores = _learnt(matrix)
    last = len(scores) - 1
    return _mean(scores[j:last, j].max() - scores[last, j] for j in range(last))


def bwt(matrix: Matrix) -> float:
    """Backward transfer: what later tasks did, on average, to the score of each earlier one.

        BWT = 1/(T-1) sum_{j<T} ( R_Tj - R_jj )

    Source: Lopez-Paz & Ranzato (2017), https://arxiv.org/abs/1706.08840, eq. 3.

    Its negative is what Wolczyk et al. (2021, Continual World), https://arxiv.org/abs/2105.10919, call
    forgetting: F = mean_j p_j(after task j) - p_j(at the end).

    Returns:
        Negative where tasks were forgotten. NaN for fewer than two tasks, or where a score that it
        needs is missing.

    >>> round(bwt([[0.9], [0.6, 0.8]]), 4)
    -0.3
    """
    scores = _learnt(matrix)
    last = len(scores) - 1
    return _mean(scores[last, j] - scores[j, j] for j in range(last))


def fwt(matrix: Matrix, baseline: Sequence[float] | np.ndarray) -> float:
    """Forward transfer: what the tasks before it did, on average, for a task not yet learnt.

        FWT = 1/(T-1) sum_{j>1} ( R_{j-1,j} - b_j )

    Source: Lopez-Paz & Ranzato (2017), https://arxiv.org/abs/1706.08840, eq. 4. The forward transfer of
    Wolczyk et al. (2021), https://arxiv.org/abs/2105.10919, is another: it compares the areas under a
    task's learning curve in the sequence and alone, which takes a run on that task alone.

    Args:
        baseline: `[tasks]`, the score of the untrained model on each task.

    Returns:
        Positive where earlier tasks helped. NaN for fewer than two tasks, or where a score that it
        needs is missing: a matrix of only the tasks seen has none of them.

    Raises:
        ValueError: If the baseline has fewer tasks than were learnt.

    >>> round(fwt([[0.9, 0.4], [0.6, 0.8]], baseline=[0.1, 0.1]), 4)
    0.3
    """
    scores = _learnt(matrix)
    if len(baseline) < len(scores):
        raise ValueError(
            f"The baseline needs the untrained model's score on each of the {len(scores)} tasks "
            f"learnt, not on {len(baseline)}."
        )
    return _mean(scores[j - 1, j] - baseline[j] for j in range(1, len(scores)))


def learning_accuracy(matrix: Matrix) -> float:
    """The mean score of each task directly after it was learnt.

        LA = 1/T sum_j R_jj

    Source: Riemer et al. (2019), https://arxiv.org/abs/1810.11910. Of returns it is logged as
    `learning_return`.

    Returns:
        In the scores' units. NaN without tasks, or where a score that it needs is missing.

    >>> round(learning_accuracy([[0.9], [0.6, 0.8]]), 4)
    0.85
    """
    return _mean(_learnt(matrix).diagonal())


def _learnt(matrix: Matrix) -> np.ndarray:
    """float64 `[tasks learnt, tasks learnt]`, NaN where there is no score."""
    count = len(matrix)
    scores = np.full((count, count), np.nan)
    for i, row in enumerate(matrix):
        scores[i, : len(row)] = row[:count]
    return scores


def _mean(values: Iterable[float]) -> float:
    """Their mean, summed exactly; NaN of none."""
    values = list(values)
    return math.fsum(values) / len(values) if values else math.nan

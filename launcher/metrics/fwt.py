"""Forward transfer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .matrix import Matrix, mean, scores_learnt


def fwt(matrix: Matrix, baseline: Sequence[float] | np.ndarray) -> float:
    """Forward transfer: the average effect of earlier tasks on the score of a task not yet learnt.

        FWT = 1/(T-1) sum_{j>1} ( R_{j-1,j} - b_j )

    Source: Lopez-Paz & Ranzato (2017), https://arxiv.org/abs/1706.08840, eq. 4. The forward transfer of
    Wolczyk et al. (2021), https://arxiv.org/abs/2105.10919, is another: it compares the areas under a
    task's learning curve in the sequence and alone, which needs another run on that task alone.

    Args:
        matrix: `[tasks learnt][tasks]`, with each task's score before it was learnt.
        baseline: `[tasks]`, the score of the untrained model on each task.

    Returns:
        Positive where earlier tasks helped. NaN for fewer than two tasks, or where a score that it
        needs is missing: a matrix of only the tasks seen has none of them.

    Raises:
        ValueError: If the baseline has fewer tasks than were learnt.

    >>> round(fwt([[0.9, 0.4], [0.6, 0.8]], baseline=[0.1, 0.1]), 4)
    0.3
    """
    scores = scores_learnt(matrix)
    # A longer baseline is fine: tasks to come were evaluated untrained as well.
    if len(baseline) < len(scores):
        raise ValueError(
            f"The baseline needs the untrained model's score on each of the {len(scores)} tasks "
            f"learnt, not on {len(baseline)}."
        )
    return mean(scores[j - 1, j] - baseline[j] for j in range(1, len(scores)))

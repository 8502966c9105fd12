"""Backward transfer."""

from __future__ import annotations

from .matrix import Matrix, mean, scores_learnt


def bwt(matrix: Matrix) -> float:
    """Backward transfer: the average effect of later tasks on the score of each earlier one.

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
    scores = scores_learnt(matrix)
    last = len(scores) - 1
    return mean(scores[last, j] - scores[j, j] for j in range(last))

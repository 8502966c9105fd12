"""Forgetting."""

from __future__ import annotations

from .matrix import Matrix, mean, scores_learnt


def forgetting(matrix: Matrix) -> float:
    """The average drop of each earlier task from its best score.

        F = 1/(T-1) sum_{j<T} ( max_{j <= i < T} R_ij - R_Tj )

    The best score is that between learning the task and beginning the last one, so that a task that is
    better now than ever before counts as negative.

    Source: Chaudhry et al. (2018), https://arxiv.org/abs/1801.10112, eq. 3 and its mean.

    Returns:
        In the scores' units; in [-1, 1] for accuracies. NaN for fewer than two tasks, or where a
        score that it needs is missing.

    >>> round(forgetting([[0.9], [0.6, 0.8]]), 4)
    0.3
    """
    scores = scores_learnt(matrix)
    last = len(scores) - 1
    return mean(scores[j:last, j].max() - scores[last, j] for j in range(last))

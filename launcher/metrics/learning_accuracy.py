"""Learning accuracy."""

from __future__ import annotations

from .matrix import Matrix, mean, scores_learnt


def learning_accuracy(matrix: Matrix) -> float:
    """The mean score of each task directly after it was learnt.

        LA = 1/T sum_j R_jj

    Source: Riemer et al. (2019), https://arxiv.org/abs/1810.11910. For returns it is logged as
    `learning_return`.

    Returns:
        In the scores' units. NaN without tasks, or where a score that it needs is missing.

    >>> round(learning_accuracy([[0.9], [0.6, 0.8]]), 4)
    0.85
    """
    return mean(scores_learnt(matrix).diagonal())

"""Summaries of evaluations on several tasks: each task's score, their mean, and transfer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from . import METRICS, metrics_of, score_names
from .matrix import Matrix


def score(metrics: Mapping[str, float], *, told: bool = False) -> float:
    """A task's score: the first metric that scores it, or NaN if nothing could be evaluated.

    Args:
        metrics: Values by the metrics' names.
        told: Whether the model knows the task: then its task-IL accuracy counts.

    >>> score({"loss": 0.2, "accuracy": 0.9})
    0.9
    """
    return next((metrics[name] for name in score_names(told=told) if name in metrics), math.nan)


def objective(metrics: Mapping[str, float], *, told: bool = False) -> float | None:
    """The value that a sweep optimises: the score, or the loss for regression; None without either.

    >>> objective({"mse": 0.2, "r2": 0.9, "loss": 0.2})
    0.2
    """
    values = {metric.name for metric in metrics_of("values")}
    names = [name for name in score_names(told=told) if name not in values]
    return next((metrics[name] for name in names if name in metrics), None)


def by_task(scores: Sequence[Mapping[str, float]], *, own: Iterable[str] = ()) -> dict[str, float]:
    """Each task's metrics, from the first task on, as eval.csv names them.

    Args:
        own: Names of the user's own metrics, which are written for each task too.

    >>> by_task([{"accuracy": 0.9, "mae": 1.0}, {"accuracy": 0.8}])
    {'accuracy/task_0': 0.9, 'accuracy/task_1': 0.8}
    """
    each = {metric.name for metric in METRICS if metric.per_task} | {*own}
    return {f"{k}/task_{i}": v for i, s in enumerate(scores) for k, v in s.items() if k in each}


def mean_over_tasks(results: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every metric that all tasks have.

    >>> mean_over_tasks([{"accuracy": 0.75, "r2": 1.0}, {"accuracy": 0.25}])
    {'accuracy': 0.5}
    """
    # Tasks may differ in kind: a metric that one of them lacks has no mean.
    names = [name for name in results[0] if all(name in result for result in results)]
    return {name: float(np.mean([result[name] for result in results])) for name in names}


def transfer(matrix: Matrix, baseline: Sequence[float], *, returns: bool) -> dict[str, float]:
    """Transfer between tasks: `forgetting`, `bwt` and others, as far as the scores determine them.

    Args:
        matrix: `[tasks learnt][tasks]`: row i after learning task i, column j on task j.
        baseline: `[tasks]`, the untrained model's scores; empty if it was not evaluated.
        returns: Whether the scores are returns of environments.
    """
    matrix, found = np.array(matrix), {}
    for metric in metrics_of("tasks"):
        other = metric.unit and metric.unit != ("return" if returns else "accuracy")
        if other or len(matrix) < metric.after or (metric.baseline and not baseline):
            continue
        extra = (baseline,) if metric.baseline else ()
        found[metric.name] = metric.function(matrix, *extra)
    # Left out instead of NaN, which loggers and tables would show as a result.
    return {name: value for name, value in found.items() if not math.isnan(value)}

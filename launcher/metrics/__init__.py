"""One list of what an evaluation measures. A new metric is one file here and one line of `METRICS`.

Evaluation computes what the list says, and everything that shows, compares or chooses by a metric reads it:
the logs, the console, the curves and tables, early stopping, schedulers and sweeps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Literal

PLACES = ("mode", "step", "epoch", "task")
"""Columns of train.csv and eval.csv that say where a row was measured, not what."""

Subject = Literal["classes", "logits", "told", "labels", "pixels", "values", "episodes", "tasks"]
"""What a metric is computed from:

- `classes`: the chosen classes int64 `[N]` and the labels int64 `[N]`.
- `logits`: float `[N, n]`, and the labels.
- `told`: the logits when the task is known, the labels, and the task's classes int64 `[k]`.
- `labels`: logits of several labels, float `[N, K]`, and the labels, `[N, K]` of 0 and 1.
- `pixels`: how many pixels of each class (row) have each prediction (column), int64 `[n, n]`.
- `values`: the predicted values float `[N, ...]` and the true ones.
- `episodes`: their returns and their lengths, a list of numbers each.
- `tasks`: the matrix of scores `[tasks learnt][tasks]`; with `baseline`, also the untrained scores `[tasks]`.
"""


@dataclass(frozen=True)
class Metric:
    """One number of an evaluation.

    Attributes:
        name: Its key in `run.metrics`, and its column in eval.csv.
        of: The subject that its function receives.
        computed_by: Name of the function, and of its file in this folder.
        better: Whether more or less is better; None: neither.
        score: Whether a task is scored by it. The first such metric that an evaluation has is the
            task's score, and enters the matrix of scores.
        per_task: Whether it is written for each task of a sequence: `accuracy/task_0`.
        panel: Whether a run's learning curves have a panel for it.
        told: The metric that replaces it if the model knows the task (`scenario=task`).
        unit: For `tasks`: the score whose unit it has, if its name depends on that.
        after: For `tasks`: int, how many tasks must have been learnt.
        baseline: For `tasks`: whether it needs the untrained model's scores.
    """

    name: str
    of: Subject
    computed_by: str
    better: Literal["more", "less"] | None = None
    score: bool = False
    per_task: bool = False
    panel: bool = False
    told: str = ""
    unit: Literal["", "accuracy", "return"] = ""
    after: int = 1
    baseline: bool = False

    @cached_property
    def function(self) -> Callable[..., float]:
        """Computes the metric, in float64. Imported when first used: a plot needs only the names."""
        module = import_module(f".{self.computed_by}", __package__)
        found: Callable[..., float] = vars(module)[self.computed_by]
        return found


def _common(name: Literal["accuracy", "loss"], of: Subject, computed_by: str) -> Metric:
    """A score that most kinds of targets have, each computed in its own way."""
    return Metric(
        name,
        of,
        computed_by,
        "less" if name == "loss" else "more",
        score=True,
        per_task=True,
        panel=True,
        told=f"task_il_{name}",
    )


# The order matters: the first metric that can score a task does, and columns of eval.csv follow it.
METRICS = (
    Metric("return", "episodes", "mean_return", "more", score=True, per_task=True, panel=True),
    Metric("return_stddev", "episodes", "return_stddev"),
    Metric("episode_length", "episodes", "episode_length"),
    _common("accuracy", "classes", "accuracy"),
    Metric("task_il_accuracy", "told", "task_il_accuracy", "more", per_task=True),
    Metric("task_il_loss", "told", "task_il_loss", "less"),
    # The names that every kind of targets has are replaced alike where the task is known.
    _common("accuracy", "labels", "label_accuracy"),
    Metric("f1", "labels", "macro_f1", "more", per_task=True, panel=True),
    Metric("subset_accuracy", "labels", "subset_accuracy", "more", per_task=True),
    _common("accuracy", "pixels", "pixel_accuracy"),
    Metric("mean_iou", "pixels", "mean_iou", "more", per_task=True, panel=True),
    Metric("mse", "values", "mse", "less", panel=True),
    Metric("mae", "values", "mae", "less"),
    Metric("r2", "values", "r2", "more", score=True, per_task=True, panel=True),
    # Of values the loss is the squared error; a model that generates computes its own.
    _common("loss", "logits", "cross_entropy"),
    _common("loss", "labels", "binary_cross_entropy"),
    Metric("learning_accuracy", "tasks", "learning_accuracy", "more", unit="accuracy"),
    Metric("learning_return", "tasks", "learning_accuracy", "more", unit="return"),
    Metric("forgetting", "tasks", "forgetting", "less", after=2),
    Metric("bwt", "tasks", "bwt", "more", after=2),
    Metric("fwt", "tasks", "fwt", "more", after=2, baseline=True),
)


def metrics_of(subject: Subject) -> list[Metric]:
    """The metrics computed from one subject, in the list's order.

    >>> [metric.name for metric in metrics_of("values")]
    ['mse', 'mae', 'r2']
    """
    return [metric for metric in METRICS if metric.of == subject]


def score_names(*, told: bool = False, loss_first: bool = False) -> list[str]:
    """The metrics that may score a task, in order of preference.

    Args:
        told: Whether the model knows the task; metrics that use it then come first.
        loss_first: Prefer those of which less is better.

    >>> score_names()
    ['return', 'accuracy', 'r2', 'loss']
    >>> score_names(told=True)[:2]
    ['task_il_accuracy', 'task_il_loss']
    >>> score_names(loss_first=True)
    ['loss', 'return', 'accuracy', 'r2']
    """
    scores = [metric for metric in METRICS if metric.score]
    if loss_first:
        scores.sort(key=lambda metric: metric.better != "less")
    # Before all others: without the task such a model's class-IL score would mean little.
    with_task = [metric.told for metric in scores if told and metric.told]
    # Several kinds of targets have an accuracy: each name once.
    return list(dict.fromkeys([*with_task, *(metric.name for metric in scores)]))


def better(name: str) -> Literal["more", "less"] | None:
    """Whether more or less of a metric is better; None for one that is not in the list."""
    return next((metric.better for metric in METRICS if metric.name == name), None)


def known(name: str) -> bool:
    """Whether a metric is in the list."""
    return any(metric.name == name for metric in METRICS)

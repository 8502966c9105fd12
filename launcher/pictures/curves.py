"""The learning curves of one run, drawn when it ends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics import METRICS, score_names
from .parameters import draw_parameters
from .style import (
    COLOURS,
    GREY,
    MARKED,
    Curve,
    context,
    legend_below,
    log_axis,
    number,
    panels,
    save,
    series,
    steps_axis,
    title_above,
)
from .tasks import draw_tasks

Row = dict[str, Any]

_MOST_POINTS = 300  # Of a line; longer ones are averaged down, which also calms them.

_MOST_OWN = 6  # Panels for metrics of the user's own.


def draw_run(
    path: Path,
    history: list[Row],
    *,
    matrix: list[list[float]],
    task_il: list[list[float]] | None = None,
    told: bool = False,
    parameters: Mapping[str, Any] | None = None,
    names: Sequence[str] | None = None,
    own: Sequence[str] = (),
    title: str = "",
) -> None:
    """Write the pictures of one run to `<path>/plots`, each as PNG and SVG, if it has any data.

    `learning_curve`: training loss and evaluation metrics by step.
    `accuracy_matrix` (for environments `return_matrix`) and `tasks`, for several tasks: the main metric on
    every task after learning each.
    `task_il_matrix`, for several tasks: the same metric when the model knows the task.
    `parameters`: how many are reserved for each task, and how many are free.

    Args:
        history: The rows of train.csv and eval.csv; other rows, and values that are not finite
            numbers, are ignored.
        matrix: `[tasks learnt][tasks]`: row i after learning task i, column j on task j.
        task_il: `[tasks learnt][tasks]`: the same when the model knows the task of each row.
        told: Whether the model always knows the task (`scenario=task`): then `task_il` is drawn first.
        parameters: For a model that reserves parameters for each task: `used`, their number for each
            task learnt, and `total`, the number of all.
        names: `[tasks]`, name of each task; None: its number alone.
        own: Names of the user's own metrics; the first few that are single numbers have panels too.
        title: Name of the run; written above every picture.
    """
    evals = [row for row in history if row.get("mode") == "eval"]
    metric = next((name for name in score_names() if any(name in row for row in evals)), "score")
    with context():
        stem = path / "plots" / "learning_curve"
        _draw_curves(stem, history, title, told=told, own=own)
        if len(matrix) > 1:
            about: dict[str, Any] = {"told": told, "names": names, "title": title}
            draw_tasks(path / "plots", matrix, metric, task_il=task_il, **about)
        if parameters is not None:
            draw_parameters(path / "plots", parameters["used"], parameters["total"], title=title)


def _draw_curves(
    stem: Path, history: list[Row], title: str, *, told: bool, own: Sequence[str]
) -> None:
    drawn = _curves(history, told=told, own=own)
    names = list(dict.fromkeys(name for name, _ in drawn))
    if not names:
        return
    borders = task_borders(history)
    figure, axes = panels(len(names))
    lines: dict[str, Any] = {}
    for name, ax in zip(names, axes, strict=True):
        for border in borders:
            ax.axvline(border, color=GREY, linewidth=0.6, linestyle=(0, (4, 3)), zorder=1)
        if train := drawn.get((name, "train")):
            marker = "o" if len(train[0]) == 1 else None
            (lines["training"],) = ax.plot(
                *thinned(*train), color=GREY, linewidth=1.1, marker=marker, zorder=2
            )
        if evaluation := drawn.get((name, "eval")):
            label = "evaluation, mean of the tasks seen" if borders else "evaluation"
            marker = "o" if len(evaluation[0]) <= MARKED else None
            (lines[label],) = ax.plot(*evaluation, color=COLOURS[0], marker=marker, zorder=3)
        values = np.concatenate([curve[1] for curve in (train, evaluation) if curve])
        if values.min() > 0 and values.max() > 100 * values.min():
            log_axis(ax)
        ax.set_ylabel(name)
        steps_axis(ax)
    legend_below(figure, lines)
    title_above(figure, "Learning curves", title)
    save(figure, stem)


def _curves(
    history: list[Row], *, told: bool, own: Sequence[str] = ()
) -> dict[tuple[str, str], Curve]:
    """The curves of each panel, by its name and by mode (`train`, `eval`)."""
    train, evals = ([row for row in history if row.get("mode") == m] for m in ("train", "eval"))
    curves = {}
    # The loss first: it is what training minimises.
    for metric in sorted((m for m in METRICS if m.panel), key=lambda m: m.name != "loss"):
        name, held_out = metric.name, series(evals, metric.name)
        if told and metric.told and len((with_task := series(evals, metric.told))[0]):
            held_out = with_task
            # Training's loss hides the outputs of other tasks, too: both are in one panel.
            name = name if name == "loss" else metric.told
        curves[name, "train"], curves[name, "eval"] = series(train, name), held_out
    if all(row.get("mse") == row.get("loss") for row in evals) and len(curves["mse", "eval"][0]):
        # The evaluation's loss is the squared error then, often in other units than training's.
        del curves["loss", "eval"]
    for name in [name for name in own if "/" not in name][:_MOST_OWN]:
        curves[name, "train"], curves[name, "eval"] = series(train, name), series(evals, name)
    return {key: curve for key, curve in curves.items() if len(curve[0])}


def task_borders(history: list[Row]) -> list[float]:
    """The steps at which one task ended and the next began."""
    last: dict[float, float] = {}
    for task, step in ((number(row.get("task")), number(row.get("step"))) for row in history):
        if not (math.isnan(task) or math.isnan(step)):
            last[task] = max(step, last.get(task, 0.0))
    return sorted(last.values())[:-1]


def thinned(steps: np.ndarray, values: np.ndarray) -> Curve:
    """A line of at most `_MOST_POINTS`, by the means of equally many neighbours each."""
    size = -(-len(steps) // _MOST_POINTS)
    starts = np.arange(0, len(steps), size)
    counts = np.diff(starts, append=len(steps))
    return np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts) / counts

"""A run's own learning curves, drawn when it ends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import COLOURS, GREY, METRICS, Curve, panels, save, series, steps_axis, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]

_PANELS = ("loss", "accuracy", "return", "r2", "mse")
_MOST_POINTS = 300  # Of a line; longer ones are averaged down, which also calms them.
_MOST_NUMBERS = 20  # Tasks up to which the matrix has room for numbers.


def draw_run(path: Path, history: list[Row], *, matrix: list[list[float]]) -> None:
    """Write the pictures of one run to `<path>/plots`, each as PNG and SVG, if it has any data.

    `learning_curve`: the training loss, and the evaluation's metrics, against the step.
    `accuracy_matrix` and `tasks`, of several tasks: the main metric of every task after each.

    Args:
        history: The rows of train.csv and eval.csv; other rows, and values that are not finite
            numbers, are passed over.
        matrix: `[tasks learnt][tasks]`: row i after learning task i, column j on task j.
    """
    scores = _square(matrix)
    evals = [row for row in history if row.get("mode") == "eval"]
    metric = next((name for name in METRICS if any(name in row for row in evals)), "score")
    with style():
        _draw_curves(path / "plots" / "learning_curve", history)
        if len(scores) > 1 and np.isfinite(scores).any():
            _draw_matrix(path / "plots" / "accuracy_matrix", scores, metric)
            _draw_tasks(path / "plots" / "tasks", scores, metric)


def _draw_curves(stem: Path, history: list[Row]) -> None:
    modes = {m: [row for row in history if row.get("mode") == m] for m in ("train", "eval")}
    curves = {(name, m): series(rows, name) for name in _PANELS for m, rows in modes.items()}
    if len(curves["mse", "eval"][0]):
        # The evaluation's loss is its squared error then, and may have another unit than training's.
        del curves["loss", "eval"]
    drawn = {key: curve for key, curve in curves.items() if len(curve[0])}
    names = [name for name in _PANELS if any(name == key[0] for key in drawn)]
    if not names:
        return
    borders = task_borders(history)
    figure, axes = panels(len(names))
    for name, ax in zip(names, axes, strict=True):
        for border in borders:
            ax.axvline(border, color=GREY, linewidth=0.6, linestyle=(0, (4, 3)), zorder=1)
        _draw_panel(ax, drawn.get((name, "train")), drawn.get((name, "eval")))
        mean = borders and name != "loss" and (name, "eval") in drawn
        ax.set_ylabel(f"{name} (mean of tasks seen)" if mean else name)
        steps_axis(ax)
    save(figure, stem)


def _draw_panel(ax: Axes, train: Curve | None, evaluation: Curve | None) -> None:
    if train is not None:
        ax.plot(*thinned(*train), color=GREY, linewidth=1.1, label="training", zorder=2)
    if evaluation is not None:
        few = "o" if len(evaluation[0]) <= 30 else None
        ax.plot(*evaluation, color=COLOURS[0], marker=few, label="evaluation", zorder=3)
    values = np.concatenate([curve[1] for curve in (train, evaluation) if curve is not None])
    if values.min() > 0 and values.max() > 100 * values.min():
        ax.set_yscale("log")
    ax.legend()


def task_borders(history: list[Row]) -> list[float]:
    """The steps at which one task ended and the next began."""
    last: dict[Any, float] = {}
    for row in history:
        if "task" in row and "step" in row:
            last[row["task"]] = max(row["step"], last.get(row["task"], 0))
    return sorted(last.values())[:-1]


def thinned(steps: np.ndarray, values: np.ndarray) -> Curve:
    """A line of at most `_MOST_POINTS`, by the means of equally many neighbours each."""
    size = -(-len(steps) // _MOST_POINTS)
    starts = np.arange(0, len(steps), size)
    counts = np.diff(starts, append=len(steps))
    return np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts) / counts


def _square(matrix: list[list[float]]) -> np.ndarray:
    """float64 `[tasks learnt, tasks]`, NaN where there is no number."""
    scores = np.full((len(matrix), max(map(len, matrix), default=0)), np.nan)
    for i, row in enumerate(matrix):
        scores[i, : len(row)] = np.array(row, dtype=np.float64)
    return np.where(np.isfinite(scores), scores, np.nan)


def _draw_matrix(stem: Path, scores: np.ndarray, metric: str) -> None:
    rows, columns = scores.shape
    figure, (ax,) = panels(1, size=(1.3 + 0.36 * columns, 1.0 + 0.32 * rows))
    share = metric == "accuracy"
    low, high = (0.0, 1.0) if share else (np.nanmin(scores), np.nanmax(scores))
    image = ax.imshow(scores, cmap="Blues", vmin=low, vmax=high, aspect="auto")
    if columns <= _MOST_NUMBERS:
        for (i, j), value in np.ndenumerate(scores):
            text = "–" if np.isnan(value) else f"{value:.2f}" if share else f"{value:.3g}"
            dark = value > (low + high) / 2
            ax.text(j, i, text, ha="center", va="center", color="white" if dark else "black")
    every = 1 if columns <= _MOST_NUMBERS else 5
    ax.set_xticks(range(0, columns, every), labels=range(1, columns + 1, every))
    ax.set_yticks(range(0, rows, every), labels=range(1, rows + 1, every))
    ax.set_xlabel("on task")
    ax.set_ylabel("after learning task")
    ax.grid(False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    figure.colorbar(image, label=metric).outline.set_visible(False)
    save(figure, stem)


def _draw_tasks(stem: Path, scores: np.ndarray, metric: str) -> None:
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    rows, columns = scores.shape
    figure, (ax,) = panels(1)
    learnt = np.arange(1, rows + 1)
    shades = colormaps["viridis"](np.linspace(0, 0.92, columns))  # Tasks have an order.
    for j in range(min(rows, columns)):
        ax.plot(learnt[j:], scores[j:, j], "o-", color=shades[j], label=f"task {j + 1}")
    seen = np.where(np.tri(rows, columns, dtype=bool), scores, np.nan)
    numbers = np.isfinite(seen).sum(axis=1)
    mean = np.divide(np.nansum(seen, axis=1), numbers, where=numbers > 0, out=np.full(rows, np.nan))
    ax.plot(learnt, mean, color="black", linewidth=2.2, label="mean of seen")
    ax.set_xlabel("tasks learnt")
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    ax.set_ylabel(metric)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=1 + columns // 12)
    save(figure, stem)

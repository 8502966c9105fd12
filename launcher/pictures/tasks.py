"""A sequence of tasks in pictures: the score on each task after learning each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .style import number, panels, save, title_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_NUMBERS = 20  # Tasks up to which the matrix has room for numbers.
_LONGEST_NAME = 24  # Characters of a task's name.
_MOST_NAMES = 12  # Tasks up to which each is in the legend.


def draw_tasks(
    folder: Path,
    matrix: list[list[float]],
    metric: str,
    *,
    task_il: list[list[float]] | None = None,
    told: bool = False,
    names: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Write `accuracy_matrix`, `task_il_matrix` and `tasks` to a folder, as far as there are numbers.

    For returns the first is called `return_matrix`.

    Args:
        matrix: `[tasks learnt][tasks]`: row i after learning task i, column j on task j.
        metric: Name of the score; an accuracy is drawn on a scale from 0 to 1.
        task_il: `[tasks learnt][tasks]`: the same when the model knows the task of each row, drawn as a
            second heat map and a second panel of curves.
        told: Whether the model always knows the task (`scenario=task`): then `task_il` comes first.
        names: `[tasks]`, name of each task; None: its number alone.
        title: Name of the run.
    """
    stem = "return_matrix" if metric == "return" else "accuracy_matrix"
    drawn = {metric: (stem, _square(matrix))}
    if task_il is not None:
        drawn = {
            f"class-IL {metric}": drawn[metric],
            f"task-IL {metric}": ("task_il_matrix", _square(task_il)),
        }
        if told:
            drawn = dict(reversed(drawn.items()))
    drawn = {name: pair for name, pair in drawn.items() if np.isfinite(pair[1]).any()}
    for name, (stem, scores) in drawn.items():
        _draw_matrix(folder / stem, scores, name, title, names)
    if drawn:
        curves = {name: scores for name, (_, scores) in drawn.items()}
        _draw_curves(folder / "tasks", curves, title, names)


def task_colours(count: int) -> np.ndarray:
    """Colours `[count, 4]` of as many tasks, from dark to light: tasks have an order."""
    from matplotlib import colormaps

    return colormaps["viridis"](np.linspace(0, 0.85, count))


def _draw_matrix(
    stem: Path, scores: np.ndarray, metric: str, title: str, names: Sequence[str] | None
) -> None:
    rows, columns = scores.shape
    width, height = (min(count, _MOST_NUMBERS) for count in (columns, rows))
    named = 0.0 if names is None else 0.07 * max(len(_shortened(name)) for name in names)
    figure, (ax,) = panels(1, size=(1.3 + named + 0.36 * width, 1.0 + 0.32 * height))
    low, high, write = np.nanmin(scores), np.nanmax(scores), _short
    if _is_accuracy(metric):
        low, high, write = 0.0, 1.0, "{:.2f}".format
    colours = "Blues"
    if low < 0 < high:  # White is a return of 0, red less.
        low, high, colours = -max(-low, high), max(-low, high), "RdBu"
    image = ax.imshow(scores, cmap=colours, vmin=low, vmax=high, aspect="auto")
    if columns <= _MOST_NUMBERS:
        for (i, j), value in np.ndenumerate(scores):
            text = "-" if np.isnan(value) else write(value)
            # White text on dark cells: black would be unreadable there.
            dark = (abs(value) > 0.7 * high) if low == -high else (value > low + 0.7 * (high - low))
            cell = ax.text(j, i, text, ha="center", va="center", color="white" if dark else "black")
            cell.set_in_layout(False)  # Measuring hundreds of them would take seconds.
    every = 1 if columns <= _MOST_NUMBERS else 5
    ax.set_xticks(range(0, columns, every), labels=range(1, columns + 1, every))
    ax.set_yticks(range(0, rows, every), labels=[_label(i, names) for i in range(0, rows, every)])
    ax.set_xlabel("on task")
    ax.set_ylabel("after learning task")
    ax.grid(False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    figure.colorbar(image, label=metric).outline.set_visible(False)
    title_above(figure, f"{metric} on each task after each", title)
    save(figure, stem)


def _draw_curves(
    stem: Path, curves: dict[str, np.ndarray], title: str, names: Sequence[str] | None
) -> None:
    """A panel for each matrix `[tasks learnt, tasks]`, by the name of what it holds."""
    figure, axes = panels(len(curves))
    for ax, (metric, scores) in zip(axes, curves.items(), strict=True):
        _draw_panel(ax, scores, metric, names)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    title_above(figure, "Each task as others are learnt", title)
    save(figure, stem)


def _draw_panel(ax: Axes, scores: np.ndarray, metric: str, names: Sequence[str] | None) -> None:
    from matplotlib.ticker import MaxNLocator

    rows, columns = scores.shape
    learnt = np.arange(1, rows + 1)
    every = -(-columns // _MOST_NAMES)
    for j, colour in enumerate(task_colours(columns)[:rows]):
        (line,) = ax.plot(learnt[j:], scores[j:, j], "o-", color=colour)
        known = f"task {j + 1}" if names is None else _label(j, names)
        line.set_label(known if j % every == 0 else "")
    seen = np.where(np.tri(rows, columns, dtype=bool), scores, np.nan)
    numbers = np.isfinite(seen).sum(axis=1)
    mean = np.divide(np.nansum(seen, axis=1), numbers, where=numbers > 0, out=np.full(rows, np.nan))
    ax.plot(learnt, mean, color="black", linewidth=2.2, label="mean of seen")
    ax.set_xlabel("tasks learnt")
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    ax.set_ylabel(metric)
    if _is_accuracy(metric):
        ax.set_ylim(-0.03, 1.03)


def _label(task: int, names: Sequence[str] | None) -> str:
    """`1`, or `1 CartPole-v1`."""
    return f"{task + 1}" if names is None else f"{task + 1} {_shortened(names[task])}"


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."


def _is_accuracy(metric: str) -> bool:
    return metric.split()[-1] == "accuracy"


def _short(value: float) -> str:
    """Two digits: -1.5k, 0.25."""
    from matplotlib.ticker import EngFormatter

    if abs(value) < 1:
        return f"{value:.2g}"
    return EngFormatter(sep="")(float(f"{value:.2g}"))


def _square(matrix: list[list[float]]) -> np.ndarray:
    """The matrix as float64 `[tasks learnt, tasks]`, NaN where a score is missing."""
    scores = np.full((len(matrix), max(map(len, matrix), default=0)), np.nan)
    for i, row in enumerate(matrix):
        scores[i, : len(row)] = [number(score) for score in row]
    return scores

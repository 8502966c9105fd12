"""A sequence of tasks in pictures: what of each is known after each."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .style import number, panels, save

_MOST_NUMBERS = 20  # Tasks up to which the matrix has room for numbers.
_MOST_NAMES = 12  # Tasks up to which each is in the legend.


def draw_tasks(folder: Path, matrix: list[list[float]], metric: str) -> None:
    """Write `accuracy_matrix` and `tasks` to a folder, if the matrix has any number.

    Args:
        matrix: `[tasks learnt][tasks]`: row i after learning task i, column j on task j.
        metric: Its name; an accuracy's scale is from 0 to 1.
    """
    scores = _square(matrix)
    if np.isfinite(scores).any():
        _draw_matrix(folder / "accuracy_matrix", scores, metric)
        _draw_curves(folder / "tasks", scores, metric)


def _draw_matrix(stem: Path, scores: np.ndarray, metric: str) -> None:
    rows, columns = scores.shape
    width, height = (min(count, _MOST_NUMBERS) for count in (columns, rows))
    figure, (ax,) = panels(1, size=(1.3 + 0.36 * width, 1.0 + 0.32 * height))
    low, high, write = np.nanmin(scores), np.nanmax(scores), _short
    if metric == "accuracy":
        low, high, write = 0.0, 1.0, "{:.2f}".format
    image = ax.imshow(scores, cmap="Blues", vmin=low, vmax=high, aspect="auto")
    if columns <= _MOST_NUMBERS:
        for (i, j), value in np.ndenumerate(scores):
            text = "-" if np.isnan(value) else write(value)
            dark = value > (low + high) / 2
            cell = ax.text(j, i, text, ha="center", va="center", color="white" if dark else "black")
            cell.set_in_layout(False)  # Measuring hundreds of them would take seconds.
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


def _draw_curves(stem: Path, scores: np.ndarray, metric: str) -> None:
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    rows, columns = scores.shape
    figure, (ax,) = panels(1)
    learnt = np.arange(1, rows + 1)
    shades = colormaps["viridis"](np.linspace(0, 0.85, columns))  # Tasks have an order.
    every = -(-columns // _MOST_NAMES)
    for j in range(min(rows, columns)):
        (line,) = ax.plot(learnt[j:], scores[j:, j], "o-", color=shades[j])
        line.set_label(f"task {j + 1}" if j % every == 0 else "")
    seen = np.where(np.tri(rows, columns, dtype=bool), scores, np.nan)
    numbers = np.isfinite(seen).sum(axis=1)
    mean = np.divide(np.nansum(seen, axis=1), numbers, where=numbers > 0, out=np.full(rows, np.nan))
    ax.plot(learnt, mean, color="black", linewidth=2.2, label="mean of seen")
    ax.set_xlabel("tasks learnt")
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    ax.set_ylabel(metric)
    if metric == "accuracy":
        ax.set_ylim(-0.03, 1.03)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(figure, stem)


def _short(value: float) -> str:
    """Two digits: -1.5k."""
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")(float(f"{value:.2g}"))


def _square(matrix: list[list[float]]) -> np.ndarray:
    """float64 `[tasks learnt, tasks]`, NaN where there is no number."""
    scores = np.full((len(matrix), max(map(len, matrix), default=0)), np.nan)
    for i, row in enumerate(matrix):
        scores[i, : len(row)] = [number(score) for score in row]
    return scores

"""Parameters reserved for each task, in models that divide or add them (PackNet, PNN)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .style import GREY, number, panels, save, title_above
from .tasks import task_colours

_MOST_ROWS = 20  # Tasks up to which each has room for its numbers.


def draw_parameters(folder: Path, used: Sequence[float], total: float, *, title: str = "") -> None:
    """Write `parameters` to a folder, if the tasks have any.

    A bar for each task, which begins where the previous one ends, and a grey one for free parameters.

    Args:
        used: `[tasks learnt]`, the number of parameters reserved for each, in the order of learning.
        total: Number of all parameters; the rest is free. The sum of `used` for a model that grows
            with each task.
        title: Name of the run.
    """
    from matplotlib.ticker import EngFormatter, MaxNLocator

    counts = np.array([number(count) for count in used])
    free = max(number(total) - counts.sum(), 0.0)
    if not counts.sum() > 0 or np.isnan(free):
        return
    tasks = len(counts)
    every = -(-tasks // _MOST_ROWS)
    names = {row: str(row + 1) for row in range(0, tasks - every + 1, every)}
    colours = [*task_colours(tasks)]
    if free:
        counts, colours, names[tasks] = np.append(counts, free), [*colours, GREY], "free"
    short = EngFormatter(sep="")

    figure, (ax,) = panels(1, size=(3.0, 0.6 + 0.2 * min(len(counts), _MOST_ROWS + 1)))
    rows, starts = np.arange(len(counts)), counts.cumsum() - counts
    # The edges keep a bar visible that is narrower than a pixel.
    edge = {"edgecolor": colours, "linewidth": 0.5, "clip_on": False}
    ax.barh(rows, counts, left=starts, color=colours, **edge)
    for row in names:
        text = f"{short(float(f'{counts[row]:.3g}'))} ({_percent(counts[row] / counts.sum())})"
        beside = ax.get_yaxis_transform()
        ax.text(1.02, row, text, transform=beside, va="center_baseline", fontsize=8)
    ax.set_xlabel("parameters")
    ax.set_xlim(0, counts.sum())
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(short)
    ax.set_ylabel("task")
    ax.set_ylim(len(counts) - 0.4, -0.6)  # The first task on top.
    ax.set_yticks([*names], labels=[*names.values()])
    ax.grid(False, axis="y")
    ax.tick_params(axis="y", length=0)
    title_above(figure, "Parameters of each task", title)
    save(figure, folder / "parameters")


def _percent(share: float) -> str:
    """One decimal: 12.5%."""
    return "<0.1%" if 0 < share < 0.0005 else f"{share:.1%}"

"""How every picture looks and how it is written: no display, no pyplot, nothing left changed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = tuple[np.ndarray, np.ndarray]
"""Steps and values, both float64 `[points]`."""

# By which a run is judged, the first that it has.
METRICS = ("accuracy", "return", "r2", "loss")

# Told apart with any kind of colour vision. Source: Okabe & Ito (2008), without their yellow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", ":", "-.")
GREY = "#888888"
LIGHT = "#e4e4e4"

_LARGEST = 1e30  # Beyond this the ticks of an axis overflow.
_RC = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.usetex": False,
    "text.parse_math": False,  # Names of runs and data may hold a `$`.
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": LIGHT,
    "grid.linewidth": 0.6,
    "xtick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.color": GREY,
    "ytick.labelcolor": "black",
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "svg.hashsalt": "antelope",  # The same data gives the same bytes.
}


def style() -> AbstractContextManager[None]:
    """Within it, what is drawn and written looks like Antelope's pictures."""
    import matplotlib

    return matplotlib.rc_context(_RC)


def panels(count: int, *, columns: int = 3, size: tuple[float, float] = (3.4, 2.6)) -> Any:
    """A figure of `count` panels, filled row by row; one panel alone is a little wider.

    Returns:
        The figure, and a list of its axes.
    """
    from matplotlib.figure import Figure

    columns = min(columns, count)
    rows = math.ceil(count / columns)
    width, height = size if count > 1 else (size[0] * 1.25, size[1] * 1.15)
    figure = Figure(figsize=(columns * width, rows * height))
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    return figure, axes


def steps_axis(axes: Axes) -> None:
    """Label the x axis as steps: 500, 20k, 1M."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def series(rows: Iterable[Mapping[str, Any]], name: str) -> Curve:
    """The steps and values of one column, where both are finite numbers, or text that says one."""
    points = [(_number(row.get("step")), _number(row.get(name))) for row in rows]
    kept = np.array([p for p in points if not any(map(math.isnan, p))], dtype=np.float64)
    return kept[:, 0] if len(kept) else kept, kept[:, 1] if len(kept) else kept


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.nan
    return number if abs(number) < _LARGEST else math.nan


def save(figure: Figure, stem: Path, formats: Iterable[str] = ("png", "svg")) -> list[Path]:
    """Write the figure as `<stem>.<format>` for every format; call it within `style()`."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.{format}") for format in formats]
    for path in paths:
        metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
        figure.savefig(path, metadata=metadata)
    return paths

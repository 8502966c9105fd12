"""The common look of all pictures, and how they are written: no display, no pyplot, no global state."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np

from ...replay.errors import ConfigError
from ...replay.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = tuple[np.ndarray, np.ndarray]
"""Steps and values, both float64 `[points]`."""

FORMATS = ("png", "svg", "pdf")

# Distinguishable with any kind of colour vision. Source: Okabe & Ito (2008), without their yellow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", ":", "-.")
GREY = "#909090"
BAND: dict[str, Any] = {"alpha": 0.18, "linewidth": 0}
MARKED = 30  # Points up to which each is marked.
LIGHT = "#e4e4e4"

_LARGEST = 1e30  # Beyond this the ticks of an axis overflow.
_RC: dict[Any, Any] = {
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
    "axes.formatter.useoffset": False,
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
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "svg.hashsalt": "antelope",  # The same data gives the same bytes.
}


# Without dates, the same data gives the same bytes; packing a PNG tightly would cost more than drawing it.
_WRITTEN: dict[str, dict[str, Any]] = {
    ".png": {"pil_kwargs": {"compress_level": 1}},
    ".svg": {"metadata": {"Date": None}},
    ".pdf": {"metadata": {"CreationDate": None}},
}


def context() -> AbstractContextManager[None]:
    """Inside it, what is drawn and written has the look of Antelope's pictures.

    Raises:
        ConfigError: If matplotlib cannot be imported as this process is set up.
    """
    try:
        import matplotlib
    except (ImportError, ValueError) as error:  # MPLBACKEND names what it does not know.
        raise ConfigError(f"Cannot draw: importing matplotlib failed: {error}") from error
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
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    return figure, axes


def steps_axis(axes: Axes) -> None:
    """Label the x axis, from 0 on, as steps: 500, 20k, 1M."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.set_xlabel("step")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def log_axis(axes: Axes) -> None:
    """Make the y axis logarithmic: 0.01, 1, 100."""
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # The default one is math text.
    axes.yaxis.set_minor_formatter(NullFormatter())


def series(rows: Iterable[Mapping[str, Any]], name: str) -> Curve:
    """The steps and values of one column, where both are finite numbers, or text that says one."""
    points = [(number(row.get("step")), number(row.get(name))) for row in rows]
    kept = np.array([p for p in points if not any(map(math.isnan, p))], dtype=np.float64)
    return kept[:, 0] if len(kept) else kept, kept[:, 1] if len(kept) else kept


def number(value: SupportsFloat | str | None) -> float:
    """A finite number, or text that says one, as a float; NaN for anything else."""
    if value is None:  # A column that this row does not have.
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.nan
    return number if abs(number) < _LARGEST else math.nan


def look(index: int) -> dict[str, Any]:
    """Colour and dashes of the line with this index: 28 of them differ."""
    dash = DASHES[index // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": dash}


def legend_below(figure: Figure, lines: dict[str, Any]) -> None:
    """One legend for all panels, under them, in as many columns as fit."""
    width, height = figure.get_size_inches()
    longest = max(map(len, lines))
    columns = max(1, min(len(lines), int(width * 13) // (longest + 8)))
    rows = -(-len(lines) // columns)
    figure.set_size_inches(width, height + 0.2 * rows)
    # A space, because matplotlib before 3.10 leaves names that begin with `_` out of legends.
    names = [f" {name}" if name.startswith("_") else name for name in lines]
    figure.legend(list(lines.values()), names, loc="outside lower center", ncols=columns)


def title_above(figure: Figure, what: str, title: str) -> None:
    """Write above a picture what it shows, and of which run; nothing if `title` is empty."""
    if not title:
        return
    text = f"{what}: {title}"
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(text, max(12, int(width * 12)))
    figure.set_size_inches(width, height + 0.17 * len(lines))
    figure.suptitle("\n".join(lines), fontsize=_RC["axes.titlesize"], fontweight="bold")


def save(figure: Figure, path: Path) -> list[Path]:
    """Write the figure in the format that the path ends in, else as `<path>.png` and `.svg`.

    Call it within `context()`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    named = path.suffix[1:] in FORMATS
    paths = [path] if named else [path.with_name(f"{path.name}.{end}") for end in FORMATS[:2]]
    figure.get_layout_engine().execute(figure)  # type: ignore[union-attr]
    figure.set_layout_engine(None)  # Otherwise every format is laid out, and drawn, twice.
    for target in paths:
        with replacing(target, "wb") as file:
            figure.savefig(file, format=target.suffix[1:], **_WRITTEN[target.suffix])
    return paths

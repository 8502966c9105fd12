"""A run's last predictions in pictures: which classes are confused, the worst mistakes, and others."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...replay.files import make_folder, replacing
from .predictions import ClassPredictions, Mistake, Predictions, ValuePredictions
from .style import COLOURS, GREY, context, panels, save, title_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_NUMBERS = 20  # Classes up to which the matrix has room for numbers.
_MOST_NAMES = 40  # Classes up to which each has a label.
_LONGEST_NAME = 18  # Characters.
_MOST_PAIRS = 16  # Confused pairs that are listed beside a matrix without numbers.
_MISTAKES_PER_ROW = 6


def draw_results(folder: Path, found: Predictions, *, title: str = "") -> None:
    """Write the pictures and tables that suit the predictions to a folder.

    `confusion_matrix`: rows are labels, columns predictions.
    `classes.csv`: precision, recall, f1 and support of each class.
    `mistakes.png`: the most confident wrong predictions, for images.
    `roc`: ROC and precision-recall curves, for two classes.
    `predictions`: predicted against true values, for regression.

    Args:
        title: Name of the run; written above every picture.
    """
    with context():
        if isinstance(found, ValuePredictions):
            if len(found.label):
                _draw_values(folder / "predictions", found, title)
            return
        _write_table(folder / "classes.csv", found.table())
        if not isinstance(found, ClassPredictions):
            return
        names = short_names(found.names)
        if found.counts is not None and found.n > 1:
            _draw_confusion(folder / "confusion_matrix", found.counts, names, title)
        if found.mistakes:
            _draw_mistakes(folder / "mistakes.png", found.mistakes, names, title)
        if (scores := found.scores) is not None and 0 < scores[1].sum() < len(scores[1]):
            _draw_ranking(folder / "roc", *scores, names[1], title)


def _write_table(path: Path, rows: list[dict[str, str | float | int]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    make_folder(path.parent)
    with replacing(path, newline="") as file:
        file.write(text.getvalue())


def _draw_confusion(stem: Path, counts: np.ndarray, names: Sequence[str], title: str) -> None:
    from matplotlib.figure import Figure

    n = len(counts)
    support = counts.sum(1, keepdims=True)
    shares = np.divide(counts, support, where=support > 0, out=np.full(counts.shape, np.nan))
    side = float(np.clip(0.42 * n, 2.6, 8.0))
    listed = n > _MOST_NUMBERS
    figure = Figure(figsize=(side + 1.6 + 3.4 * listed, side + 1.0), layout="constrained")
    ax, *beside = (
        figure.subplots(1, 2, width_ratios=(side + 1.6, 3.4)) if listed else [figure.subplots()]
    )
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if not listed:
        size = 8 if n <= 12 else 6
        for (i, j), count in np.ndenumerate(counts):
            colour = "white" if shares[i, j] > 0.6 else "black" if count else GREY
            text = ax.text(
                j, i, _count(count), ha="center", va="center", color=colour, fontsize=size
            )
            text.set_in_layout(False)  # Measuring hundreds of them would take seconds.
    every = -(-n // _MOST_NAMES)
    labels = names[::every]
    size = 8 if n <= 25 else 6
    upright = max(map(len, labels)) > 3
    ax.set_xticks(range(0, n, every), labels=labels, rotation=90 if upright else 0, fontsize=size)
    ax.set_yticks(range(0, n, every), labels=labels, fontsize=size)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.grid(False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=ax, label="share of the true class", shrink=0.8)
    bar.outline.set_visible(False)
    for pairs in beside:
        _list_pairs(pairs, counts, names)
    title_above(figure, "Confusion matrix", title)
    if upright:  # Long names need two passes of the layout, of which `save` makes the second.
        figure.get_layout_engine().execute(figure)  # type: ignore[union-attr]
    save(figure, stem)


def _list_pairs(ax: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
    """Write the most frequent confusions as text, where a matrix has no room for numbers."""
    ax.axis("off")
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_PAIRS]
    lines = [
        f"{wrong[i, j]:>6,}  {names[i]} \N{RIGHTWARDS ARROW} {names[j]}"
        for i, j in (divmod(int(place), len(counts)) for place in order)
        if wrong[i, j]
    ]
    ax.set_title("Most frequent confusions" if lines else "No confusions", loc="left", fontsize=9)
    ax.text(
        0, 0.98, "\n".join(lines), va="top", fontsize=7, linespacing=1.6, transform=ax.transAxes
    )


def _draw_mistakes(path: Path, mistakes: list[Mistake], names: Sequence[str], title: str) -> None:
    from matplotlib.figure import Figure

    columns = min(_MISTAKES_PER_ROW, max(3, len(mistakes)))
    rows = -(-len(mistakes) // columns)
    height, width, _ = mistakes[0].image.shape
    side = max(height, width)  # Of a cell: narrow and flat images need room for their text too.
    above, gap = 0.32 * side, max(1, round(0.06 * side))
    tall, wide = height + round(above), side + gap
    # One image of all: as many axes as mistakes would take a second to lay out.
    canvas = np.full((rows * tall, columns * wide, 3), 255, np.uint8)
    across = 1.3 * columns
    shape = (across, across * canvas.shape[0] / canvas.shape[1])
    figure = Figure(figsize=shape, layout="constrained")
    ax = figure.add_subplot()
    for number, mistake in enumerate(mistakes):
        top, left = (
            number // columns * tall + tall - height,
            number % columns * wide + (side - width) // 2,
        )
        canvas[top : top + height, left : left + width] = (255 * mistake.image).round()
        true, predicted = names[mistake.label], names[mistake.predicted]
        text = f"true: {true}\npred.: {predicted} ({mistake.confidence:.2f})"
        place = (left + width / 2 - 0.5, top - 0.5 - 0.04 * side)
        ax.text(*place, text, fontsize=6, ha="center", va="bottom").set_in_layout(False)
    ax.imshow(canvas, interpolation="nearest")
    ax.set_axis_off()
    title_above(figure, "The most confident mistakes", title)
    save(figure, path)


def _draw_ranking(stem: Path, scores: np.ndarray, label: np.ndarray, name: str, title: str) -> None:
    false, true, precision = curves(scores, label)
    area = float(((false[1:] - false[:-1]) * (true[1:] + true[:-1]) / 2).sum())
    average = float(((true[1:] - true[:-1]) * precision[1:]).sum())
    figure, (roc, pr) = panels(2)
    thin = np.unique(np.linspace(0, len(false) - 1, 2000, dtype=np.int64))
    roc.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    roc.plot(false[thin], true[thin], color=COLOURS[0])
    roc.set_title(f"ROC, area {area:.3f}")
    roc.set_xlabel("false positive rate")
    roc.set_ylabel("true positive rate")
    pr.axhline(label.mean(), color=GREY, linewidth=0.8, linestyle="--")
    pr.step(true[thin][1:], precision[thin][1:], where="pre", color=COLOURS[1])
    pr.set_title(f"Precision-recall, AP {average:.3f}")
    pr.set_xlabel("recall")
    pr.set_ylabel("precision")
    for ax in (roc, pr):
        ax.set_xlim(-0.02, 1.02)
        ax.set_ylim(-0.02, 1.05)
    title_above(figure, f"Class {name}", title)
    save(figure, stem)


def curves(scores: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False and true positive rates, and precision, at every threshold, from the highest one on.

    Args:
        scores: float `[N]`.
        label: int64 `[N]` of 0 and 1, both of which occur.

    Returns:
        float64 `[thresholds + 1]` each; the first point is (0, 0), with precision 1.

    >>> false, true, precision = curves(np.array([0.9, 0.4, 0.6]), np.array([1, 1, 0]))
    >>> false.tolist(), true.tolist(), precision.round(2).tolist()
    ([0.0, 0.0, 1.0, 1.0], [0.0, 0.5, 0.5, 1.0], [1.0, 1.0, 0.5, 0.67])
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(label[order])[ends]
    total = ends + 1
    true, false = hits / hits[-1], (total - hits) / (len(label) - hits[-1])
    return np.append(0.0, false), np.append(0.0, true), np.append(1.0, hits / total)


def _draw_values(stem: Path, found: ValuePredictions, title: str) -> None:
    columns = found.label.shape[1]
    figure, axes = panels(columns)
    for i, ax in enumerate(axes):
        label, output = found.label[:, i], found.output[:, i]
        kept = np.isfinite(label) & np.isfinite(output)
        label, output = label[kept], output[kept]
        if len(label):
            ends = [min(label.min(), output.min()), max(label.max(), output.max())]
            ax.plot(ends, ends, color=GREY, linewidth=0.8, linestyle="--", zorder=1)
        alpha = 0.7 if len(label) < 300 else 0.25
        ax.plot(label, output, "o", color=COLOURS[0], markersize=2.5, markeredgewidth=0, alpha=alpha,
                rasterized=True)  # fmt: skip
        named = f" {found.names[i]}" if found.names else f" column {i}" if columns > 1 else ""
        ax.set_xlabel(f"true{named}")
        ax.set_ylabel("predicted")
    left_out = f" ({columns} of {found.columns} columns)" if found.columns > columns else ""
    title_above(figure, f"Predicted against true values{left_out}", title)
    save(figure, stem)


def short_names(names: Sequence[str]) -> list[str]:
    """Names with room in a picture; those that would look the same begin with their class's number.

    >>> short_names(["cat", "tomato leaf, early blight", "tomato leaf, early mould"])
    ['cat', '1: tomato leaf,...', '2: tomato leaf,...']
    """
    lines = [" ".join(name.split()) for name in names]
    short = [_shortened(line) for line in lines]
    count = Counter(short)
    return [
        form if count[form] == 1 else _shortened(f"{i}: {line}")
        for i, (form, line) in enumerate(zip(short, lines, strict=True))
    ]


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."


def _count(count: int) -> str:
    return f"{count / 1000:.0f}k" if count >= 10_000 else str(count)

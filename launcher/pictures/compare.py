"""`ml plot`: learning curves of all runs below a folder, mean and standard deviation over seeds."""

from __future__ import annotations

from collections.abc import Iterator
from os.path import relpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...replay.errors import ConfigError
from ...replay.files import make_folder
from ...replay.suggestions import did_you_mean
from . import style
from .groups import (
    Groups,
    Pictures,
    by_folder,
    choose,
    different_settings,
    find_runs,
    mean_of_last,
    mean_over_seeds,
    name_groups,
    recorded,
)
from .style import Curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

_USAGE = "ml plot [FOLDER] [metric=NAME] [out=PATH]"
_TABLE = 60  # Characters; on a narrower console a table would cut off the names of its runs.


def plot_runs(words: list[str]) -> None:
    """Draw one curve per group of runs; print how each group ended and where the pictures are.

    Args:
        words: `[FOLDER] [metric=NAME] [out=PATH]`. FOLDER is `runs` unless given. NAME is a column
            of eval.csv, or `train/` and one of train.csv; unless given, a group is drawn by the
            first of its scores: return, accuracy, r2, loss. PATH is `<FOLDER>/plots/<NAME>` unless
            given; both PNG and SVG are written unless it ends in one of png, svg, pdf.

    Raises:
        ConfigError: For a wrong word, a folder without runs, or a metric that no run has.
    """
    from rich.console import Console

    folder, metric, out = read_words(words)
    groups = _groups_below(folder)
    pictures = _pictures_of(groups, metric, folder)
    if out is not None and len(pictures) > 1:
        raise ConfigError(
            f"out={out} names a single picture, but these runs need one for each of "
            f"{' and '.join(pictures)}. Choose one of them with metric=."
        )
    names = name_groups(groups)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print((summary if console.width >= _TABLE else _in_lines)(pictures, names))
    for place, runs in by_folder(groups).items():
        if different := ", ".join(different_settings(runs)):
            console.print(
                f"Runs that differ in more than their seed ({different}): {relpath(place)}"
            )
    drawn = {group for curves in pictures.values() for group in curves}
    if without := ", ".join(relpath(group) for group in groups if group not in drawn):
        console.print(f"Runs without {metric or 'any metric'}: {without}")
    for name, curves in pictures.items():
        path = out or folder / "plots" / name.replace("/", "-")
        try:
            if out is None:
                make_folder(path.parent)  # Below a folder that was found, not through its links.
            with style.context():
                written = style.save(draw(curves, names, name), path)
        except OSError as error:
            raise ConfigError(
                f"Cannot write to {path} ({error.strerror}). Pass another out=."
            ) from error
        console.print(f"Written to {' and '.join(map(str, written))}")


def _groups_below(folder: Path) -> Groups:
    """The runs below a folder.

    Raises:
        ConfigError: If there are none, or none was evaluated.
    """
    if groups := find_runs(folder):
        return groups
    if any(folder.rglob("train.csv")):
        raise ConfigError(
            f"No run below `{folder}` has been evaluated: there is no eval.csv to draw. Runs with "
            "eval_episodes=0 are never evaluated; their training returns are in train.csv, and drawn in "
            "each run's plots/."
        )
    raise ConfigError(
        f"No runs below `{folder}`: no folder there holds config.yaml and eval.csv. "
        f"Train one first, or name another folder: {_USAGE}."
    )


def _pictures_of(groups: Groups, metric: str | None, folder: Path) -> Pictures:
    """What to draw of the runs.

    Raises:
        ConfigError: If no run has recorded the metric; names the nearest one.
    """
    if pictures := choose(groups, metric):
        return pictures
    known = recorded(groups)
    usual = [name for name in known if "/task_" not in name]
    near = did_you_mean(metric, known if "/task_" in metric else usual) if metric else ""
    raise ConfigError(
        f"No run below `{folder}` has recorded {metric or 'any metric'}.{near} "
        f"There are: {', '.join(usual) or 'none'}."
    )


def read_words(words: list[str]) -> tuple[Path, str | None, Path | None]:
    """The folder, metric and output path that the words of the command ask for."""
    folders, given, mistakes = [], {}, []
    for word in words:
        key, equals, value = word.partition("=")
        if value and key in ("metric", "out"):
            given[key] = value
        elif Path(word).is_dir():  # Also one that a sweep has named `lr=0.1`.
            folders.append(word)
        elif equals and key in ("metric", "out"):
            mistakes.append(f"`{word}` has no value.")
        elif equals:
            mistakes.append(f"`{word}` is not understood.{did_you_mean(key, ('metric', 'out'))}")
        else:
            near = [str(path) for path in Path(word).parent.glob("*/")]
            mistakes.append(f"No folder `{word}`.{did_you_mean(word, near)}")
    if len(folders) > 1:
        mistakes.append(
            f"Only one folder can be drawn at a time, not {len(folders)}: {', '.join(folders)}."
        )
    out = Path(given["out"]) if "out" in given else None
    if out and out.suffix[1:].isalpha() and out.suffix[1:] not in style.FORMATS:
        mistakes.append(f"out={out} must end in .{', .'.join(style.FORMATS)}, or have no suffix.")
    if mistakes:
        raise ConfigError("\n".join([*mistakes, f"Usage: {_USAGE}"]))
    return Path(folders[0] if folders else "runs"), given.get("metric"), out


def draw(curves: dict[Path, list[Curve]], names: dict[Path, str], metric: str) -> Figure:
    """One panel per data set, one colour per name, a band of the standard deviation over seeds."""
    data = sorted({group.name for group in curves})
    order = sorted({names[group] for group in curves})
    figure, axes = style.panels(len(data))
    lines: dict[str, Any] = {}
    for group, seeds in curves.items():
        ax, look = axes[data.index(group.name)], style.look(order.index(names[group]))
        steps, mean, stddev = mean_over_seeds(seeds)
        (line,) = ax.plot(steps, mean, **look, marker="o" if len(steps) <= style.MARKED else None)
        ax.fill_between(steps, mean - stddev, mean + stddev, color=look["color"], **style.BAND)
        lines[names[group]] = line
    for name, ax in zip(data, axes, strict=True):
        ax.set_title(name)
        ax.set_ylabel(metric)
        style.steps_axis(ax)
    if len(order) > 1:
        style.legend_below(figure, {name: lines[name] for name in order})
    return figure


def summary(pictures: Pictures, names: dict[Path, str]) -> Table:
    """A table of the groups: mean and standard deviation of their seeds' last values."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE)
    for title in ("data", "runs", "metric"):
        table.add_column(title, overflow="fold")
    for title in ("last value", "seeds", "at step"):
        table.add_column(title, no_wrap=True)
    for cells in _rows(pictures, names):
        table.add_row(*map(Text, cells))
    return table


def _in_lines(pictures: Pictures, names: dict[Path, str]) -> str:
    """The summary as lines, for a console too narrow for the table."""
    lines = []
    for data, runs, metric, value, seeds, step in _rows(pictures, names):
        count = "1 seed" if seeds == "1" else f"{seeds} seeds"
        lines.append(f"{data}, {runs}: {metric} {value} ({count}, at step {step})")
    return "\n".join(lines)


def _rows(pictures: Pictures, names: dict[Path, str]) -> Iterator[tuple[str, ...]]:
    for metric, curves in pictures.items():
        for group, seeds in sorted(curves.items(), key=lambda item: item[0].name):
            mean, stddev = mean_of_last(seeds)
            value = f"{mean:.4g} ± {stddev:.2g}" if len(seeds) > 1 else f"{mean:.4g}"
            ends = {steps[-1] for steps, _ in seeds}
            step = " - ".join(f"{end:,.0f}" for end in sorted({min(ends), max(ends)}))
            yield group.name, names[group], metric, value, str(len(seeds)), step

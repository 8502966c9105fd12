"""`ml plot`: the learning curves of all runs below a folder, mean and deviation over seeds."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...replay.errors import ConfigError
from ..config import did_you_mean
from .style import COLOURS, DASHES, METRICS, Curve, panels, save, series, steps_axis, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Runs = dict[Path, list[Path]]  # By the folder that holds the runs of one experiment, one per seed.
Curves = dict[Path, list[Curve]]

_USAGE = "ml plot [FOLDER] [metric=NAME] [out=PATH]"
_FORMATS = ("png", "svg", "pdf")


def plot_runs(words: list[str]) -> None:
    """Draw one curve per experiment, and print where it is and how each one ended.

    Args:
        words: `[FOLDER] [metric=NAME] [out=PATH]`. FOLDER is `runs`; `metric` the first of
            accuracy, return, r2 and loss that a run has; `out` is `<FOLDER>/plots/<metric>`.
            A picture is written as PNG and SVG, or in the format that `out` ends in.

    Raises:
        ConfigError: For a wrong word, a folder without runs, or a metric that no run has.
    """
    from rich.console import Console

    folder, metric, out = read_words(words)
    groups = find_runs(folder)
    if not groups:
        raise ConfigError(
            f"No runs below {folder}: none of its folders holds config.yaml and eval.csv. "
            f"Train one first, or name another folder: {_USAGE}."
        )
    pictures = choose(groups, metric)
    if not pictures:
        raise ConfigError(_no_metric(groups, metric, folder))
    if out is not None and len(pictures) > 1:
        raise ConfigError(
            f"out={out} names one picture, but these runs need {len(pictures)}: "
            f"{', '.join(pictures)}. Add metric=, one of those."
        )
    console, labels = Console(highlight=False), name_groups(groups)
    console.print(table({name: curves for name, curves in pictures.items()}, labels))
    for name, curves in pictures.items():
        stem, formats = out or folder / "plots" / name.replace("/", "-"), ("png", "svg")
        if stem.suffix[1:] in _FORMATS:
            stem, formats = stem.with_suffix(""), (stem.suffix[1:],)
        with style():
            paths = save(draw(curves, labels, name), stem, formats)
        console.print(f"Written to {' and '.join(map(str, paths))}", soft_wrap=True, markup=False)

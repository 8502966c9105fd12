"""Runs that differ only in their seed: finding them, telling them apart, averaging them."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...replay.errors import ConfigError
from ...replay.files import read_text
from ..metrics import METRICS, PLACES, score_names
from ..settings.plain_yaml import load_foreign
from ..settings.schema import that_count
from .style import Curve, series

Groups = dict[Path, list[Path]]
"""Runs by the folder they are in: one experiment, model and data set; one run per seed.

The last part of the path also says what the folder's name does not: `Digits, tasks=5`.
"""

Pictures = dict[str, dict[Path, list[Curve]]]
"""What to draw: by metric and group, one curve per seed."""

# Scores of runs whose model is told the task (`scenario=task`). Other runs record them, too, but only for
# comparison, so that they are never the default there.
_TOLD = [metric.told for metric in METRICS if metric.told and metric.better == "more"]
_DEFAULTS = (*_TOLD, *score_names(), "train/return", "train/loss")
# Settings that change what a score means: runs that differ in them get panels of their own.
_CONDITIONS = ("tasks", "classes_per_task", "scenario", "online", "test_dataset")
_LONGEST = 30  # Characters of a value in a title.


def find_runs(folder: Path) -> Groups:
    """Every run below a folder, except those that a later run has set aside (`0.1`)."""
    return group_runs(found.parent for found in sorted(folder.resolve().rglob("eval.csv")))


def group_runs(runs: Iterable[Path]) -> Groups:
    """These runs, except those that a later run has set aside, and what is no run."""
    groups: Groups = {}
    for run in runs:
        if (run / "config.yaml").exists() and not is_set_aside(run):
            name = ", ".join([run.parent.name, *_conditions(run / "config.yaml")])
            groups.setdefault(run.parent.with_name(name), []).append(run)
    return groups


def by_folder(groups: Groups) -> Groups:
    """The runs by their folders alone, also those that are drawn apart."""
    found: Groups = {}
    for run in (run for runs in groups.values() for run in runs):
        found.setdefault(run.parent, []).append(run)
    return found


def _conditions(config: Path) -> list[str]:
    """The settings besides the data set that a run's score depends on: `tasks=5`, `scenario=task`."""
    values = _config(config)
    found = {key: values.get(key) for key in _CONDITIONS}
    for key in ("dataset", "env"):
        named = values.get(key)
        if isinstance(named, Mapping):
            found |= {k: v for k, v in named.items() if k != "_target_"}
    usual = (None, False, "class")
    return [f"{key}={_short(value)}" for key, value in found.items() if value not in usual]


def _config(path: Path) -> Mapping[str, Any]:
    """What a run's `config.yaml` holds; nothing if it cannot be read."""
    try:
        values = load_foreign(read_text(path))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, Mapping) else {}


def _short(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value).replace("/", "|")
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def is_set_aside(run: Path) -> bool:
    """Whether a run was set aside by a later one: `3.1` by `3`."""
    name = re.fullmatch(r"(.+)\.\d+", run.name)
    return name is not None and (run.with_name(name[1]) / "config.yaml").exists()


def choose(groups: Groups, metric: str | None) -> Pictures:
    """What to draw: every group by `metric`, or by the first of the usual ones that it has."""
    pictures: Pictures = {}
    left = dict(groups)
    for name in (metric,) if metric else _DEFAULTS:
        file, column = ("train", name[6:]) if name.startswith("train/") else ("eval", name)
        for group, runs in list(left.items()):
            if name in _TOLD and name != metric and ", scenario=task" not in group.name:
                continue
            curves = [series(read_rows(run / f"{file}.csv"), column) for run in runs]
            if curves := [curve for curve in curves if len(curve[0])]:
                pictures.setdefault(name, {})[group] = curves
                del left[group]
    return pictures


def recorded(groups: Groups) -> list[str]:
    """The metrics that the runs have recorded, by the names that `choose` accepts."""
    names: dict[str, None] = {}
    for run in (run for runs in groups.values() for run in runs):
        for prefix, file in (("", "eval.csv"), ("train/", "train.csv")):
            columns = [name for row in read_rows(run / file)[:1] for name in row]
            names |= dict.fromkeys(prefix + name for name in columns if name and name not in PLACES)
    return list(names)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file as text, whole lines only: a run may be writing to it.

    Not `log.read_csv`, which imports torch: `ml plot` should start in a fraction of a second.

    Raises:
        ConfigError: If it cannot be read, or is not a file of the run's own.
    """
    try:
        text = read_text(path) if path.exists() else ""
    except OSError as error:
        raise ConfigError(f"Cannot read {path} ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"Cannot read {path} ({error}).") from error
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


def mean_over_seeds(curves: list[Curve]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and sample standard deviation at every step at which any seed was evaluated.

    Between two of its own steps a seed counts by linear interpolation; before its first step and
    after its last it does not count.

    Returns:
        Steps, means and standard deviations, float64 `[points]` each; with one seed the latter are 0.

    >>> one, other = (np.array([0.0, 10.0]), np.array([1.0, 3.0])), (np.zeros(1), np.full(1, 3.0))
    >>> [x.round(3).tolist() for x in mean_over_seeds([one, other])]
    [[0.0, 10.0], [2.0, 3.0], [1.414, 0.0]]
    """
    steps = np.unique(np.concatenate([curve[0] for curve in curves]))
    values = np.array([np.interp(steps, *curve, left=np.nan, right=np.nan) for curve in curves])
    count = np.isfinite(values).sum(axis=0)
    mean = np.nansum(values, axis=0) / count
    squares = np.nansum((values - mean) ** 2, axis=0)
    return steps, mean, np.sqrt(squares / np.maximum(count - 1, 1))


def mean_of_last(curves: list[Curve]) -> tuple[float, float]:
    """Mean and sample standard deviation of the seeds' last values, each at its own last step."""
    last = np.array([values[-1] for _, values in curves])
    return float(last.mean()), float(last.std(ddof=1)) if len(last) > 1 else 0.0


def name_groups(groups: Groups) -> dict[Path, str]:
    """Names of the groups: experiment and model, as far as they differ. The data set names the panel."""
    experiments = {group: group.parent.parent for group in groups}
    common = os.path.commonpath(experiments.values())
    several_experiments = len(set(experiments.values())) > 1
    several_models = len({group.parent.name for group in groups}) > 1
    names = {}
    for group, experiment in experiments.items():
        parts = []
        if several_experiments:
            below = os.path.relpath(experiment, common)
            parts.append(experiment.name if below == "." else below)
        if several_models:
            parts.append(group.parent.name)
        names[group] = ", ".join(parts)
    return names


def different_settings(runs: list[Path]) -> list[str]:
    """The settings, other than the seed and incidental ones, that these runs do not share."""
    configs = [_config(run / "config.yaml") for run in runs]
    keys = dict.fromkeys(key for config in configs for key in config)
    may_differ = that_count("incidental", "circumstances")
    return [
        key
        for key in keys
        if key not in may_differ and any(c.get(key) != configs[0].get(key) for c in configs)
    ]

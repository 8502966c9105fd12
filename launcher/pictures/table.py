"""Runs below folders as rows of a table: one for the runs that differ in their seed alone, ranked.

Only files are read: config.yaml, eval.csv and status.json. No code that they name is imported.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import relpath
from pathlib import Path
from typing import Any

from ...envs.arrow import table_suffix
from ...replay.errors import ConfigError
from ...replay.files import read_text
from ...replay.suggestions import did_you_mean
from ..metrics import better
from ..settings.plain_yaml import load_foreign
from ..settings.schema import that_count
from .groups import Groups, choose, find_runs, read_rows, recorded
from .statistics import Summary, summarize
from .style import number

Settings = dict[str, Any]
"""Settings by dotted name, with the names of objects: `{"optim": "torch.optim.sgd.SGD", "optim.lr": 0.1}`."""

_DATA = ("dataset", "env", "test_dataset")  # The label of the data says these already.
_NAME = re.compile(r"[\w./:-]+")  # A name within a text, such as a list's.
_DOTTED = re.compile(r"(?:.+:|[\w.]+\.)([A-Za-z_]\w*)")  # The name of a class or function.
_LISTED = 5  # Runs that a note names.


@dataclass
class RunFound:
    """One run.

    Attributes:
        path: Its directory.
        data: The label of its data: `Digits, tasks=5`.
        metric: The metric that it is ranked by.
        value: The last value of that metric.
        settings: Its settings.
        status: As in status.json; empty if it cannot be read.
    """

    path: Path
    data: str
    metric: str
    value: float
    settings: Settings
    status: str


@dataclass
class Row:
    """The runs that differ in their seed alone.

    Attributes:
        data: The label of their data.
        metric: What is summarised.
        settings: The settings by which rows differ.
        runs: The runs.
        summary: Their statistics.
        rank: From 1, among the rows with the same data and metric; None if neither more nor less is better.
    """

    data: str
    metric: str
    settings: Settings
    runs: list[RunFound]
    summary: Summary
    rank: int | None = None


@dataclass
class Table:
    """Ranked rows, and what should be known of the runs in them.

    Attributes:
        rows: By data and metric, the best first.
        columns: The settings by which rows differ.
        notes: Sentences about runs that are left out, unfinished, or mixed in one row.
    """

    rows: list[Row]
    columns: list[str]
    notes: list[str] = field(default_factory=list)


def table(
    *folders: str | Path, metric: str | None = None, by: Sequence[str] | str | None = None
) -> list[dict[str, Any]]:
    """The runs below folders as rows, over seeds: `pandas.DataFrame(antelope.table("runs"))`.

    Args:
        *folders: Where to look; none: `runs`.
        metric: A column of eval.csv, or `train/` and one of train.csv; None: each run's score.
        by: The settings that rows are told apart by; None: all that differ and change results, without the
            seed.

    Returns:
        For each row `rank`, `data`, the settings, `metric`, `n`, `mean`, `stddev`, `iqm`, `low` and `high`
        (its 95 % bootstrap interval); the best first.

    Raises:
        ConfigError: If there are no runs, or none has the metric or the setting.
    """
    by = by.split(",") if isinstance(by, str) else by
    built = build_table([Path(folder) for folder in folders or ("runs",)], metric=metric, by=by)
    return [as_record(row) for row in built.rows]


def as_record(row: Row) -> dict[str, Any]:
    """A row as plain values, by column."""
    return {
        "rank": row.rank,
        "data": row.data,
        **row.settings,
        "metric": row.metric,
        **vars(row.summary),
    }


def build_table(folders: list[Path], *, metric: str | None, by: Sequence[str] | None) -> Table:
    """Group, summarise and rank the runs below folders.

    Raises:
        ConfigError: As for `table`.
    """
    groups = _groups(folders)
    notes: list[str] = []
    runs = _runs(groups, metric, notes)
    if not runs:
        known = [name for name in recorded(groups) if "/task_" not in name]
        near = did_you_mean(metric, known) if metric else ""
        raise ConfigError(
            f"No run below {_named(folders)} has recorded {metric or 'any metric'}.{near} There are: "
            f"{', '.join(known) or 'none'}."
        )
    _shorten_names(runs)
    differing = _differing(runs)
    columns = _asked(by, runs) if by is not None else differing
    rows: dict[tuple[Any, ...], list[RunFound]] = {}
    for run in runs:
        key = (run.data, run.metric, *(_key(run.settings.get(name)) for name in columns))
        rows.setdefault(key, []).append(run)
    found = [
        Row(
            members[0].data,
            members[0].metric,
            {name: members[0].settings.get(name) for name in columns},
            members,
            summarize([run.value for run in members]),
        )
        for members in rows.values()
    ]
    notes += _notes(found, differing, columns)
    return Table(_ranked(found), columns, notes)


def _groups(folders: list[Path]) -> Groups:
    """The runs below the folders, each once.

    Raises:
        ConfigError: If a folder does not exist, or there are no runs.
    """
    groups: Groups = {}
    for folder in folders:
        if not folder.is_dir():
            near = [str(path) for path in folder.parent.glob("*/")]
            raise ConfigError(f"No folder `{folder}`.{did_you_mean(str(folder), near)}")
        for group, runs in find_runs(folder).items():
            known = groups.setdefault(group, [])
            known += [run for run in runs if run not in known]
    if not groups:
        raise ConfigError(
            f"No runs below {_named(folders)}: no folder there holds config.yaml and eval.csv. Train one "
            "first, or name another folder."
        )
    return groups


def _runs(groups: Groups, metric: str | None, notes: list[str]) -> list[RunFound]:
    """The runs that have the metric, each with its last value; a note for the others."""
    found, without = [], []
    for group, runs in groups.items():
        for run in runs:
            chosen = choose({group: [run]}, metric)
            settings = _settings(run / "config.yaml")
            if not chosen or settings is None:
                without.append(relpath(run))
                continue
            (name,) = chosen
            # The folder may have any name (`path=`); what follows it says the conditions.
            source = settings.get("dataset") or settings.get("env") or group.name
            data = ", ".join([str(source), *group.name.split(", ")[1:]])
            found.append(RunFound(run, data, name, _last(run, name), settings, _status(run)))
    if without:
        notes.append(f"Left out, without {metric or 'any metric'}: {_listed(without)}.")
    return found


def _last(run: Path, metric: str) -> float:
    """The last value that a run has written of a metric, which may be NaN: curves leave those out."""
    file, column = ("train", metric[6:]) if metric.startswith("train/") else ("eval", metric)
    return number([row[column] for row in read_rows(run / f"{file}.csv") if row.get(column)][-1])


def _settings(config: Path) -> Settings | None:
    """The settings in a config.yaml; None if it cannot be read."""
    try:
        values = load_foreign(read_text(config))
    except (OSError, ValueError):
        return None
    return _flat(values) if isinstance(values, Mapping) else None


def _flat(values: Mapping[str, Any], prefix: str = "") -> Settings:
    flat: Settings = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            if "_target_" in value:
                flat[name] = value["_target_"]
            flat |= _flat({k: v for k, v in value.items() if k != "_target_"}, f"{name}.")
        elif isinstance(value, list):
            flat[name] = "+".join(_item(item) for item in value)
        else:
            flat[name] = value
    return flat


def _item(item: object) -> str:
    """An item of a list: a strategy, a width."""
    if not isinstance(item, Mapping):
        return str(item)
    arguments = [f"{key}={value}" for key, value in item.items() if key != "_target_"]
    return str(item.get("_target_")) + (f"({', '.join(arguments)})" if arguments else "")


def _shorten_names(runs: list[RunFound]) -> None:
    """Shorten the names in the settings and the data, except where two would become the same."""
    for key in dict.fromkeys(key for run in runs for key in run.settings):
        short = _short_forms(run.settings.get(key) for run in runs)
        for run in runs:
            if (value := run.settings.get(key)) in short:
                run.settings[key] = short[value]
    short = _short_forms(run.data for run in runs)
    for run in runs:
        run.data = short[run.data]


def _short_forms(values: Iterable[object]) -> dict[object, str]:
    """The short form of each text; the text itself where another has the same short form.

    >>> list(_short_forms(["torch.optim.sgd.SGD", "a.py:Net", "b.py:Net", "one.csv", 0.1]).values())
    ['SGD', 'a.py:Net', 'b.py:Net', 'one.csv']
    """
    texts = dict.fromkeys(value for value in values if isinstance(value, str))
    short = {text: _NAME.sub(lambda found: _short(found[0]), text) for text in texts}
    count = Counter(short.values())
    return {text: form if count[form] == 1 else text for text, form in short.items()}


def _short(name: str) -> str:
    """`SGD` of `torch.optim.sgd.SGD`, `Model` of `model.py:Model`; a file or anything else as it is."""
    dotted = None if table_suffix(name) else _DOTTED.fullmatch(name)
    return dotted[1] if dotted else name


def _counts(key: str) -> bool:
    """Whether a setting tells rows apart unasked: it changes results, and is not the seed."""
    root = key.partition(".")[0]
    return root not in (*_DATA, "seed") and root not in that_count("incidental", "circumstances")


def _differing(runs: list[RunFound]) -> list[str]:
    """The settings that the runs do not all share, in the order of config.yaml."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    told = {condition.partition("=")[0] for run in runs for condition in run.data.split(", ")[1:]}
    differ = [
        key
        for key in keys
        if _counts(key)
        and key not in told
        and len({_key(run.settings.get(key)) for run in runs}) > 1
    ]
    # `lr` and `optim.lr` are one setting.
    return [
        key for key in differ if not (key in ("lr", "weight_decay") and f"optim.{key}" in differ)
    ]


def _asked(by: Sequence[str], runs: list[RunFound]) -> list[str]:
    """The settings that `by=` names.

    Raises:
        ConfigError: If no run has one.
    """
    known = dict.fromkeys(key for run in runs for key in run.settings)
    wrong = [
        f"by={name}: no run has this setting.{did_you_mean(name, known)}"
        for name in by
        if name not in known
    ]
    if wrong:
        raise ConfigError("\n".join(wrong))
    return list(by)


def _ranked(rows: list[Row]) -> list[Row]:
    """The rows by data and metric, the best first, with their ranks; NaN is last."""

    def order(row: Row) -> tuple[Any, ...]:
        mean = row.summary.mean
        sign = 1 if direction(row.metric) == "less" else -1
        return row.data, row.metric, math.isnan(mean), 0.0 if math.isnan(mean) else sign * mean

    ranked = sorted(rows, key=order)
    for i, row in enumerate(ranked):
        if direction(row.metric) is None:
            continue
        before = ranked[i - 1] if i else None
        same = before is not None and (before.data, before.metric) == (row.data, row.metric)
        row.rank = before.rank + 1 if same and before is not None and before.rank else 1
    return ranked


def direction(metric: str) -> str | None:
    """Whether "more" or "less" of a metric is better; None: not known."""
    return better(metric.removeprefix("train/"))


def _notes(rows: list[Row], differing: list[str], columns: list[str]) -> list[str]:
    """What should be known of the runs in the rows."""
    notes = []
    runs = [run for row in rows for run in row.runs]
    for status in dict.fromkeys(run.status for run in runs):
        if status not in ("finished", ""):
            paths = [relpath(run.path) for run in runs if run.status == status]
            notes.append(f"{status.capitalize()}, with their last evaluation: {_listed(paths)}.")
    mixed = [
        key
        for key in differing
        if key not in columns
        and any(len({_key(run.settings.get(key)) for run in row.runs}) > 1 for row in rows)
    ]
    if mixed:
        notes.append(f"Runs of one row differ in more than their seed: {', '.join(mixed)}.")
    twice = [
        row
        for row in rows
        if len({_key(run.settings.get("seed")) for run in row.runs}) < len(row.runs)
    ]
    if twice and not mixed:
        paths = [relpath(run.path) for run in twice[0].runs]
        notes.append(f"Runs of one row have the same seed: {_listed(paths)}.")
    return notes


def _key(value: object) -> str:
    """A setting's value as something to compare: 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return repr(float(value))
    return repr(value)


def _status(run: Path) -> str:
    try:
        return str(json.loads(read_text(run / "status.json"))["status"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _listed(paths: list[str]) -> str:
    more = f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
    return ", ".join(paths[:_LISTED]) + more


def _named(folders: Iterable[Path]) -> str:
    return " and ".join(f"`{folder}`" for folder in folders)

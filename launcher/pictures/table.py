"""Runs below folders as rows of a table: one for the runs that differ in their seed alone, ranked.

Only files are read: config.yaml, eval.csv and status.json. No code that they name is imported.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from os.path import relpath
from pathlib import Path
from typing import Any

from ...replay.errors import ConfigError
from ...replay.suggestions import did_you_mean
from ..metrics import better
from ..settings.schema import that_count
from .groups import Groups, choose, find_runs, group_runs, read_rows, recorded
from .run_settings import Settings, comparable, read_settings, short_forms
from .statistics import Summary, summarize
from .style import number
from .unfinished import Found, found, listed, notes_on, without_evaluation

_DATA = ("dataset", "env", "test_dataset")  # The label of the data says these already.


@dataclass
class RunFound:
    """One run.

    Attributes:
        stands: Its directory, and how it stands.
        data: The label of its data: `Digits, tasks=5`.
        metric: The metric that it is ranked by.
        value: The last value of that metric.
        settings: Its settings.
    """

    stands: Found
    data: str
    metric: str
    value: float
    settings: Settings

    @property
    def path(self) -> Path:
        """Its directory."""
        return self.stands.path


@dataclass
class Row:
    """The runs that differ in their seed alone.

    A run that has not finished is left out, since its last evaluation is not its result. Where none has, the
    row has no rank.

    Attributes:
        data: The label of their data.
        metric: What is summarised.
        settings: The settings by which rows differ.
        runs: The runs.
        summary: Their statistics.
        rank: From 1, among the rows with the same data and metric; None if neither more nor less is better,
            or no run has finished.
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
        asked: Whether the columns were asked for, and so are shown even where all rows are alike.
    """

    rows: list[Row]
    columns: list[str]
    notes: list[str] = field(default_factory=list)
    asked: bool = False


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
    others = without_evaluation(folder for folder in folders if folder.is_dir())
    groups = _groups(folders, others)
    notes: list[str] = []
    runs = _runs(groups, metric, notes)
    if not runs:
        known = [name for name in recorded(groups) if "/task_" not in name]
        near = did_you_mean(metric, known) if metric else ""
        raise ConfigError(
            "\n".join(
                [
                    f"No run below {_named(folders)} has recorded {metric or 'any metric'}.{near} There are: "
                    f"{', '.join(known) or 'none'}.",
                    *notes_on([], others),
                ]
            )
        )
    return _table(runs, others, notes, by)


def table_of(runs: Iterable[Path], *, by: Sequence[str]) -> Table | None:
    """The table of some run directories; None if none of them has been evaluated.

    Args:
        runs: The directories.
        by: The settings that rows are told apart by, as far as the runs have them.
    """
    paths = list(runs)
    evaluated = [path for path in paths if (path / "eval.csv").exists()]
    others = [found(path) for path in paths if path not in evaluated]
    notes: list[str] = []
    members = _runs(group_runs(evaluated), None, notes)
    if not members:
        return None
    known = {key for run in members for key in run.settings}
    return _table(members, others, notes, by if set(by) <= known else None)


def _table(
    runs: list[RunFound], others: list[Found], notes: list[str], by: Sequence[str] | None
) -> Table:
    """Group, summarise and rank runs.

    Args:
        runs: Those with a value.
        others: Those without an evaluation.
        notes: What is known of the runs already.
        by: The settings that rows are told apart by; None: all that differ and change results.
    """
    _shorten_names(runs)
    differing = _differing(runs)
    columns = _asked(by, runs) if by is not None else differing
    rows: dict[tuple[Any, ...], list[RunFound]] = {}
    for run in runs:
        key = (run.data, run.metric, *(comparable(run.settings.get(name)) for name in columns))
        rows.setdefault(key, []).append(run)
    made = [_row(members, columns) for members in rows.values()]
    used = [run for row in made for run in row.runs]
    notes += notes_on(
        [run.stands for run in used],
        [*(run.stands for run in runs if run not in used), *others],
    )
    notes += _notes(made, differing, columns)
    return Table(_ranked(made), columns, notes, asked=by is not None)


def _row(members: list[RunFound], columns: Sequence[str]) -> Row:
    """The row of runs that differ in their seed alone."""
    whole = [run for run in members if run.stands.is_whole] or members
    settings = {name: members[0].settings.get(name) for name in columns}
    summary = summarize([run.value for run in whole])
    return Row(members[0].data, members[0].metric, settings, whole, summary)


def _groups(folders: list[Path], others: list[Found]) -> Groups:
    """The runs below the folders, each once.

    Args:
        others: Runs there that have not been evaluated.

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
        what = "no folder there holds config.yaml and eval.csv. Train one first, or name another folder."
        if others:
            what = "\n".join(["none of those there has been evaluated.", *notes_on([], others)])
        raise ConfigError(f"No runs below {_named(folders)}: {what}")
    return groups


def _runs(groups: Groups, metric: str | None, notes: list[str]) -> list[RunFound]:
    """The runs that have the metric, each with its last value; a note for the others."""
    members, without = [], []
    for group, runs in groups.items():
        for run in runs:
            chosen = choose({group: [run]}, metric)
            settings = read_settings(run / "config.yaml")
            if not chosen or settings is None:
                without.append(relpath(run))
                continue
            (name,) = chosen
            # The folder may have any name (`path=`); what follows it says the conditions.
            source = settings.get("dataset") or settings.get("env") or group.name
            data = ", ".join([str(source), *group.name.split(", ")[1:]])
            members.append(RunFound(found(run), data, name, _last(run, name), settings))
    if without:
        notes.append(f"Left out, without {metric or 'any metric'}: {listed(without)}.")
    return members


def _last(run: Path, metric: str) -> float:
    """The last value that a run has written of a metric, which may be NaN: curves leave those out."""
    file, column = ("train", metric[6:]) if metric.startswith("train/") else ("eval", metric)
    return number([row[column] for row in read_rows(run / f"{file}.csv") if row.get(column)][-1])


def _shorten_names(runs: list[RunFound]) -> None:
    """Shorten the names in the settings and the data, except where two would become the same."""
    for key in dict.fromkeys(key for run in runs for key in run.settings):
        short = short_forms(run.settings.get(key) for run in runs)
        for run in runs:
            if (value := run.settings.get(key)) in short:
                run.settings[key] = short[value]
    short = short_forms(run.data for run in runs)
    for run in runs:
        run.data = short[run.data]


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
        and len({comparable(run.settings.get(key)) for run in runs}) > 1
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
    """The rows by data and metric, the best first, with their ranks, which equal means share.

    NaN is last, before unfinished ones.
    """

    def order(row: Row) -> tuple[Any, ...]:
        mean = row.summary.mean
        value = 0.0 if math.isnan(mean) else mean if direction(row.metric) == "less" else -mean
        return row.data, row.metric, not _is_whole(row), math.isnan(mean), value

    ranked = sorted(rows, key=order)
    for place in dict.fromkeys((row.data, row.metric) for row in ranked):
        among = [row for row in ranked if (row.data, row.metric) == place and _is_whole(row)]
        for i, row in enumerate(among if direction(place[1]) is not None else ()):
            tied = i and among[i - 1].summary.mean == row.summary.mean
            row.rank = among[i - 1].rank if tied else i + 1
    return ranked


def _is_whole(row: Row) -> bool:
    return all(run.stands.is_whole for run in row.runs)


def direction(metric: str) -> str | None:
    """Whether "more" or "less" of a metric is better; None: not known."""
    return better(metric.removeprefix("train/"))


def _notes(rows: list[Row], differing: list[str], columns: list[str]) -> list[str]:
    """What should be known of the runs in the rows."""
    notes = []
    mixed = [
        key
        for key in differing
        if key not in columns
        and any(len({comparable(run.settings.get(key)) for run in row.runs}) > 1 for row in rows)
    ]
    if mixed:
        notes.append(f"Runs of one row differ in more than their seed: {', '.join(mixed)}.")
    twice = [
        row
        for row in rows
        if len({comparable(run.settings.get("seed")) for run in row.runs}) < len(row.runs)
    ]
    if twice and not mixed:
        paths = [relpath(run.path) for run in twice[0].runs]
        notes.append(f"Runs of one row have the same seed: {listed(paths)}.")
    return notes


def _named(folders: Iterable[Path]) -> str:
    return " and ".join(f"`{folder}`" for folder in folders)

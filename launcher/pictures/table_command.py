"""`ml table`: the runs below folders, over seeds, as Markdown, LaTeX or CSV."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ...replay.errors import ConfigError
from ...replay.shown import shown
from ...replay.suggestions import did_you_mean
from .table import Row, Table, as_record, build_table

USAGE = "ml table [FOLDER ...] [metric=NAME] [by=SETTING,...] [format=md|csv|tex] [watch=true]"
_OPTIONS = ("metric", "by", "format", "watch")

Watch = Callable[[Sequence[Path]], None]


def table_command(words: list[str], watch: Watch | None = None) -> None:
    """Print the table; notes about the runs go to stderr.

    Args:
        words: After `ml table`.
        watch: Waits while runs below the folders go on, for `watch=true`.

    Raises:
        ConfigError: For a wrong word, folders without runs, or a metric or setting that no run has.
    """
    folders: list[Path] = []
    given: dict[str, str] = {}
    mistakes: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if key in _OPTIONS and equals:
            given[key] = value
            if not value:
                mistakes.append(f"`{word}` has no value.")
        elif Path(word).is_dir() or not equals:  # A sweep may have named a folder `lr=0.1`.
            folders.append(Path(word))
        else:
            mistakes.append(f"`{word}` is not understood.{did_you_mean(key, _OPTIONS)}")
    chosen = given.get("format") or "md"
    chosen = _ALSO.get(chosen, chosen)
    if chosen not in FORMATS:
        hint = did_you_mean(chosen, [*FORMATS, *_ALSO])
        mistakes.append(f"format={chosen}: expected one of {', '.join(FORMATS)}.{hint}")
    if given.get("watch", "true") not in ("true", "false"):
        mistakes.append(f"watch={given['watch']}: expected true or false.")
    if mistakes:
        raise ConfigError("\n".join([*mistakes, f"Usage: {USAGE}"]))
    by = given["by"].split(",") if "by" in given else None
    if given.get("watch") == "true" and watch is not None:
        watch(folders or [Path("runs")])
    built = build_table(folders or [Path("runs")], metric=given.get("metric"), by=by)
    print(shown(FORMATS[chosen](built)))
    for note in built.notes:
        print(shown(note), file=sys.stderr)


def as_csv(table: Table) -> str:
    """One line per row, with all digits."""
    records = [as_record(row) for row in table.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().rstrip("\n")


def as_markdown(table: Table) -> str:
    """A table in GitHub's Markdown for each metric."""
    return "\n\n".join(in_markdown(*_cells(table, rows)) for rows in _by_metric(table))


def as_latex(table: Table) -> str:
    """A `tabular` for each metric; it needs the package booktabs."""
    return "\n\n".join(_in_latex(*_cells(table, rows)) for rows in _by_metric(table))


FORMATS: dict[str, Callable[[Table], str]] = {
    "md": as_markdown,
    "csv": as_csv,
    "tex": as_latex,
}
_ALSO = {"markdown": "md", "latex": "tex"}  # The same by their whole names.


def _by_metric(table: Table) -> list[list[Row]]:
    """The rows of each metric, in order: other metrics have columns of their own."""
    metrics = dict.fromkeys(row.metric for row in table.rows)
    return [[row for row in table.rows if row.metric == metric] for metric in metrics]


def _cells(table: Table, rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """The titles, and the cells of each row, without columns that are the same in all, unless asked for."""
    shown = [
        name
        for name in table.columns
        if table.asked or len({str(row.settings[name]) for row in rows}) > 1
    ]
    several = len({row.data for row in table.rows}) > 1
    metric = rows[0].metric
    titles = [*(["data"] if several else []), *shown, "n", metric, "IQM", "95 % interval"]
    cells = [
        [
            *([row.data] if several else []),
            *(_value(row.settings[name]) for name in shown),
            str(row.summary.n),
            _with_stddev(row),
            f"{row.summary.iqm:.4g}",
            _interval(row),
        ]
        for row in rows
    ]
    if any(row.rank for row in rows):
        titles = ["rank", *titles]
        cells = [[str(row.rank or "-"), *line] for row, line in zip(rows, cells, strict=True)]
    return titles, cells


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _with_stddev(row: Row) -> str:
    found = row.summary
    return f"{found.mean:.4g}" + ("" if math.isnan(found.stddev) else f" ± {found.stddev:.2g}")


def _interval(row: Row) -> str:
    found = row.summary
    return "-" if math.isnan(found.low) else f"{found.low:.4g} to {found.high:.4g}"


def in_markdown(titles: list[str], cells: list[list[str]]) -> str:
    """A table in GitHub's Markdown.

    Args:
        titles: Of the columns.
        cells: Of each row.
    """
    lines = [[text.replace("|", "\\|") for text in line] for line in (titles, *cells)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        "| " + " | ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([padded[0], rule, *padded[1:]])


def _in_latex(titles: list[str], cells: list[list[str]]) -> str:
    head, *body = [_guarded(" & ".join(map(_escaped, line))) + r" \\" for line in (titles, *cells)]
    begin = [rf"\begin{{tabular}}{{{'l' * len(titles)}}}", r"\toprule", head, r"\midrule"]
    return "\n".join([*begin, *body, r"\bottomrule", r"\end{tabular}"])


def _guarded(line: str) -> str:
    r"""A row that does not begin with what `\\` and `\midrule` would take for an argument of theirs."""
    return f"{{}}{line}" if line.startswith(("[", "*", "(")) else line


def _escaped(text: str) -> str:
    """Text without anything that LaTeX would take for a command."""
    special = {c: f"\\{c}" for c in "&%$#_{}"}
    special |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {"±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    return "".join(special.get(c, c) for c in text)

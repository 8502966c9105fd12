"""How the runs of a sweep stand: a table that is redrawn while they go on, and a ranked one at their end.

Both read the run directories alone, so they are the same for all engines, and for a sweep of another process.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ...replay.files import read_text
from ...replay.shown import shown
from ..metrics import better, score_names
from ..pictures.status import DIED, RUNNING, standing
from ..settings.schema import ALIASES
from .trial import Outcome, Trial

if TYPE_CHECKING:
    from rich.console import Console, Group

_REDRAWN_PER_S = 0.5  # Every time, the status of each run that has not ended is read.
_BEST = 20  # Rows of the ranked table at the end of a sweep.
_AROUND = 6  # Lines of a terminal that are not rows.
# A watched sweep is over after so many looks at which nothing ran: one run may follow another.
_QUIET_LOOKS = 8
WAITING = "waiting"
_ORDER = (RUNNING, DIED, "failed", "diverged", "finished", "stopped", "interrupted", WAITING)
_NOT_SETTINGS = ("seed", "path", "experiment")


class Named(Protocol):
    """A run to watch: what it is called, and its directory."""

    @property
    def name(self) -> str:
        """What tells it from the others."""

    @property
    def path(self) -> Path:
        """Its directory."""


@dataclass(frozen=True)
class Line:
    """How one run stands now."""

    name: str
    status: str
    step: int = 0
    metrics: Mapping[str, float] | None = None
    reason: str = ""
    silent_s: float = 0.0


@contextlib.contextmanager
def live(
    trials: Sequence[Named],
    outcomes: Mapping[Path, Outcome] | None,
    *,
    enabled: bool = True,
    console: Console | None = None,
) -> Iterator[None]:
    """Runs the block below a table of the runs, where there is a terminal; what it prints appears above.

    Args:
        trials: The runs; more may be appended meanwhile.
        outcomes: How those that have ended did, also filled meanwhile. Other runs than these that do not run
            are waiting, whatever an earlier start of the sweep left. None: status.json alone tells.
        enabled: Whether to show anything.
        console: Where; None: standard output.
    """
    if not enabled:
        yield
        return
    streams = random.getstate()
    from rich.console import Console as RichConsole
    from rich.live import Live

    random.setstate(streams)  # Rich draws a number when it is imported.
    console = console or RichConsole(highlight=False)
    if not console.is_terminal:
        yield
        return
    began = time.monotonic()

    def draw() -> Group | str:
        try:
            found = lines(list(trials), outcomes)
            return drawn(found, height=console.height, seconds=time.monotonic() - began)
        except Exception as error:  # In rich's own thread, where nobody would see it.
            return f"The table cannot be drawn ({type(error).__name__}: {error})."

    with Live(
        console=console,
        get_renderable=draw,
        refresh_per_second=_REDRAWN_PER_S,
        transient=True,
        vertical_overflow="crop",
    ):
        yield


def lines(trials: Sequence[Named], outcomes: Mapping[Path, Outcome] | None) -> list[Line]:
    """How each run stands."""
    found = []
    for trial in trials:
        ended = None if outcomes is None else outcomes.get(trial.path)
        stands = standing(trial.path)
        step = 0 if stands is None else stands.step
        if ended is not None:
            line = Line(trial.name, ended.status, step, ended.metrics, ended.reason)
        elif stands is None or (outcomes is not None and stands.status not in (RUNNING, DIED)):
            line = Line(trial.name, WAITING)
        else:
            silent = 0.0 if stands.updated is None else time.time() - stands.updated.timestamp()
            line = Line(trial.name, stands.status, step, stands.metrics, stands.reason, silent)
        found.append(line)
    return found


def drawn(found: Sequence[Line], *, height: int, seconds: float) -> Group:
    """The table of runs as `rich` draws it.

    Args:
        found: The runs.
        height: Lines of the terminal: as many runs are shown as fit, those that run first.
        seconds: Since the sweep began.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    metric = _metric(found)
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("run", "status", "step", metric or "metric", ""):
        drawn.add_column(column, justify="right" if column in ("step", metric) else "left")
    rows = sorted((line for line in found if line.status != WAITING), key=_place(metric))
    for line in rows[: max(1, height - _AROUND)]:
        value = (line.metrics or {}).get(metric)
        silent = f"silent for {line.silent_s / 60:.0f} min" if line.silent_s > 120 else ""
        note = line.reason if line.status in ("failed", "diverged") else ""
        cells = [
            *(line.name, line.status, f"{line.step:,}"),
            *("" if value is None else f"{value:.4g}", note or silent * (line.status == RUNNING)),
        ]
        drawn.add_row(*(Text(shown(cell, line=True), overflow="ellipsis") for cell in cells))
    return Group(Text(said(found, seconds=seconds), style="bold"), drawn)


def said(found: Sequence[Line], *, seconds: float) -> str:
    """`3 of 12 runs have ended: 2 finished, 1 failed; 4 running, 5 waiting  (0:03:12)`."""
    count = Counter(line.status for line in found)
    going = (RUNNING, DIED, WAITING)
    ended = [
        f"{count[status]} {status}" for status in _ORDER if count[status] and status not in going
    ]
    on = [f"{count[status]} {status}" for status in going if count[status]]
    over = sum(count[status] for status in count if status not in going)
    minutes, rest = divmod(int(seconds), 60)
    text = f"{over} of {len(found)} runs have ended"
    text += f": {', '.join(ended)}" if ended else ""
    text += f"; {', '.join(on)}" if on else ""
    return f"{text}  ({minutes // 60}:{minutes % 60:02}:{rest:02})"


def _metric(found: Sequence[Line]) -> str:
    """The metric to show: the first that scores, or else the first there is; empty if there is none."""
    names = dict.fromkeys(name for line in found for name in line.metrics or {})
    return next((name for name in score_names() if name in names), next(iter(names), ""))


def _place(metric: str) -> Callable[[Line], tuple[int, float]]:
    """Sorts runs by status, and those that have ended by their metric, the best first."""
    sign = 1.0 if better(metric) == "less" else -1.0

    def place(line: Line) -> tuple[int, float]:
        at = _ORDER.index(line.status) if line.status in _ORDER else len(_ORDER)
        value = (line.metrics or {}).get(metric, math.nan)
        return at, math.inf if math.isnan(value) else sign * value

    return place


# --------------------------------------------------------------------------------- at its end


def ranked(trials: Sequence[Trial]) -> str:
    """The ranked table of a sweep's runs, over seeds, in Markdown; empty where none has been evaluated.

    Args:
        trials: The runs.
    """
    from ..pictures.table import table_of
    from ..pictures.table_command import as_markdown

    swept = dict.fromkeys(key for trial in trials for key in trial.swept)
    keys = [_setting(key) for key in swept if key not in _NOT_SETTINGS]
    table = table_of([trial.path for trial in trials], by=keys)
    if table is None:
        return ""
    more, table.rows = len(table.rows) - _BEST, table.rows[:_BEST]
    text = as_markdown(table)
    return shown(f"{text}\n\nand {more} more rows: ml table" if more > 0 else text)


def searched(results: Sequence[tuple[Trial, float | None]], metric: str) -> str:
    """The trials of a search in Markdown, in this order; those without a result have no rank.

    Args:
        results: The trials, the best first, each with its result.
        metric: What it is.
    """
    from ..pictures.table_command import in_markdown

    if not results:
        return ""
    keys = list(results[0][0].swept)
    cells = [
        [
            "-" if value is None else str(i),
            *(trial.swept.get(key, "-") for key in keys),
            "-" if value is None else f"{value:.4g}",
        ]
        for i, (trial, value) in enumerate(results[:_BEST], start=1)
    ]
    text = in_markdown(["rank", *keys, metric], cells)
    more = len(results) - _BEST
    return shown(f"{text}\n\nand {more} more trials" if more > 0 else text)


def _setting(key: str) -> str:
    head, dot, rest = key.lstrip("+").partition(".")
    return ALIASES.get(head, head) + dot + rest


# ----------------------------------------------------------------- a sweep of another process


@dataclass(frozen=True)
class Run:
    """A run below a folder that is watched."""

    name: str
    path: Path


def watch(folders: Sequence[Path], *, console: Console | None = None) -> None:
    """Show how the runs below folders stand until none of them runs any more.

    Where there is no terminal, a line is printed for each run whose status changes.

    Args:
        folders: Where the runs are.
        console: Where to draw; None: standard output.
    """
    runs: list[Run] = []
    said_before: dict[str, str] = {}
    with live(runs, None, console=console):
        quiet = 0
        while quiet < _QUIET_LOOKS:
            quiet += 1
            runs[:] = runs_below(folders)
            found = lines(runs, None)
            if any(line.status == RUNNING for line in found):
                quiet = 0
            elif not said_before:
                return  # Nothing runs: there is nothing to wait for.
            for line in found:
                if said_before.get(line.name) != line.status and line.status != WAITING:
                    print(shown(f"{line.status:11} {line.name}  {line.reason}".rstrip(), line=True))
                said_before[line.name] = line.status
            time.sleep(1.0 / _REDRAWN_PER_S)


def runs_below(folders: Sequence[Path]) -> list[Run]:
    """The runs below folders, also those of a sweep that have not begun."""
    from ..pictures.groups import is_set_aside  # It imports NumPy.

    found: dict[Path, None] = {}
    for folder in folders:
        for file in sorted(folder.resolve().rglob("sweep.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                found |= {Path(run["path"]): None for run in json.loads(read_text(file))["runs"]}
        for file in sorted(folder.resolve().rglob("status.json")):
            if not is_set_aside(file.parent):
                found[file.parent] = None
    here = Path.cwd()
    return [
        Run(str(path.relative_to(here) if path.is_relative_to(here) else path), path)
        for path in found
    ]

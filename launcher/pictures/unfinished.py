"""Runs that have not finished, as notes below a table: how each of them stands, and why it failed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path

from ...replay.files import read_text
from .groups import is_set_aside
from .status import BY_SEARCH, standing

_LISTED = 5  # Runs that a note names.
_REASONS = 20  # Runs whose reasons are listed.
_WHOLE = ("finished", "stopped", "")  # Without a status, a run is taken as it is.
_WITH_REASON = ("failed", "diverged")


@dataclass(frozen=True)
class Found:
    """A run, and how it stands.

    Attributes:
        path: Its directory.
        status: As `status.standing` says; empty: there is no status.
        reason: Why it has ended, in a line.
    """

    path: Path
    status: str
    reason: str

    @property
    def is_whole(self) -> bool:
        """Whether it has ended as it should, so that its last evaluation is its result.

        Not one that a search has stopped: it has learnt less than the others, or fewer tasks.
        """
        return self.status in _WHOLE and not self.reason.startswith(BY_SEARCH)


def found(run: Path) -> Found:
    """How the run in a directory stands."""
    stands = standing(run)
    if stands is None:
        return Found(run, "", "")
    return Found(run, stands.status, stands.reason.strip().partition("\n")[0])


def without_evaluation(folders: Iterable[Path]) -> list[Found]:
    """The runs below folders that have not been evaluated yet, or ended before.

    Those of a sweep that failed before their first step have no files: `sweep.json` names them.
    """
    known: dict[Path, Found] = {}
    for folder in folders:
        for file in sorted(folder.resolve().rglob("status.json")):
            run = file.parent
            if not (run / "eval.csv").exists() and not is_set_aside(run):
                known[run] = found(run)
        for file in sorted(folder.resolve().rglob("sweep.json")):
            for failed in failed_in(file):
                if not (failed.path / "status.json").exists():
                    known.setdefault(failed.path, failed)
    return list(known.values())


def failed_in(sweep: Path) -> list[Found]:
    """The runs that a sweep's file says have failed; none if it cannot be read."""
    try:
        runs = json.loads(read_text(sweep))["runs"]
        return [
            Found(Path(run["path"]), run["status"], str(run["reason"]))
            for run in runs
            if run.get("status") in _WITH_REASON
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def notes_on(used: Sequence[Found], left_out: Sequence[Found]) -> list[str]:
    """What should be known of runs that have not finished.

    Args:
        used: Those whose last evaluation is in a row.
        left_out: Those that are in none.
    """
    notes = []
    for runs, what in ((used, "with their last evaluation"), (left_out, "left out")):
        for status in dict.fromkeys(run.status for run in runs):
            some = [run for run in runs if run.status == status]
            if status in ("finished", ""):
                continue
            if status in _WITH_REASON:
                notes.append(_with_reasons(some, f"{status.capitalize()}, {what}"))
            else:
                paths = listed([relpath(run.path) for run in some])
                notes.append(f"{status.capitalize()}, {what}: {paths}.")
    return notes


def _with_reasons(runs: Sequence[Found], head: str) -> str:
    """A line for each run, with the first line of what it raised."""
    lines = [f"{head}:"]
    lines += [f"  {relpath(run.path)}  {run.reason}".rstrip() for run in runs[:_REASONS]]
    if len(runs) > _REASONS:
        lines.append(f"  and {len(runs) - _REASONS} more")
    return "\n".join(lines)


def listed(paths: list[str]) -> str:
    """The first few of some paths, and the number of the others."""
    more = f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
    return ", ".join(paths[:_LISTED]) + more

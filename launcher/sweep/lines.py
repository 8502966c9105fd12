"""What a sweep says while it runs, a line for each run that ends; and which runs failed, at its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ...replay.shown import shown
from .trial import Outcome, Trial

_MOST = 3  # Metrics in a line.


def began(trials: int, *, skipped: int, elsewhere: int, moved: int, where: str) -> str:
    """The first line of a sweep.

    Args:
        trials: Number of runs.
        skipped: How many of them had finished earlier.
        elsewhere: How many are going on in another process.
        moved: How many earlier runs are out of the way now.
        where: How the others run.
    """
    left = trials - skipped - elsewhere
    told = [f"{trials} run{'s' * (trials != 1)}"]
    if skipped:
        told.append(f"{skipped} finished earlier")
    if elsewhere:
        told.append(f"{elsewhere} going on in another process")
    if left > 1:
        told.append(where if left == trials else f"{left} left, {where}")
    line = f"{', '.join(told)}."
    if moved:
        what = f"{moved} earlier run was" if moved == 1 else f"{moved} earlier runs were"
        line += f" {what} moved aside; resume=true keeps what is finished."
    return line


def ended(trial: Trial, outcome: Outcome, *, number: int, of: int) -> str:
    """The line of a run that has ended."""
    metrics = "  ".join(f"{k} {v:.4g}" for k, v in list(outcome.metrics.items())[:_MOST])
    what = outcome.reason if outcome.status in ("failed", "diverged") else metrics
    return shown(f"[{number}/{of}] {outcome.status:9} {trial.name}  {what}".rstrip(), line=True)


def failed_lines(trials: Sequence[Trial], outcomes: Mapping[Path, Outcome]) -> list[str]:
    """Which runs did not finish, and why; empty if all did."""
    bad = [(t, o) for t in trials if (o := outcomes.get(t.path)) and o.exit_code]
    if not bad:
        return []
    width = max(len(trial.name) for trial, _ in bad)
    lines = [f"{len(bad)} of {len(trials)} runs failed:"]
    lines += [f"  {trial.name:{width}}  {o.status}: {o.reason}" for trial, o in bad]
    if logs := [log for trial, _ in bad if (log := trial.path / "output.log").is_file()]:
        lines.append(f"What a run printed is in its directory, as in {logs[0]}")
    return [shown(line, line=True) for line in lines]


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """0 only if every run is finished, or was stopped early; else that of the first kind of end below."""
    codes = {outcome.exit_code for outcome in outcomes} - {0}
    # A failure is worse than a run that diverged, which is a result of its own.
    return next((code for code in (1, 2, 3) if code in codes), max(codes, default=0))

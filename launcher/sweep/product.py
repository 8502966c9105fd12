"""`ml -m seed=1,2,3 lr=1e-3,1e-2`: one run for each combination."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...replay.shown import shown
from ..record.output import write_error
from ..settings.compose import compose
from ..settings.multirun import run_multirun, said
from ..settings.settings import Settings

if TYPE_CHECKING:
    from ..run import Run

_FLAGS = ("-m", "--multirun")


def asks_for_sweep(words: list[str]) -> bool:
    """Whether the console words hold `-m`, wherever it stands."""
    return any(word in _FLAGS for word in words)


def sweep(words: list[str], train: Callable[..., Run]) -> None:
    """Train every combination of the values that are separated by commas.

    Args:
        words: Console words, `-m` included.
        train: Called with the words of one run.

    Raises:
        ConfigError: For words that no run accepts.
        Exception: The first that a run raised, after all other combinations have been trained.
    """

    from ..metrics.scores import objective  # Imports NumPy, which help and typos must not wait for.

    outcomes: list[tuple[str, str]] = []

    def run(words: list[str], swept: list[str]) -> float | None:
        combination = " ".join(said(word) for word in swept)
        try:
            settings = compose(words, {})
            finished = train(*_with_folder(words, swept, settings))
        except Exception as error:
            why = shown(f"{type(error).__name__}: {error}".partition("\n")[0], line=True)
            outcomes.append((combination, f"failed: {why}"))
            raise
        outcomes.append((combination, "finished"))
        return objective(finished.metrics, told=settings.scenario == "task")

    try:
        run_multirun([word for word in words if word not in _FLAGS], run)
    finally:
        if any(outcome != "finished" for _, outcome in outcomes):
            write_error(_table(outcomes))


def _table(outcomes: list[tuple[str, str]]) -> str:
    """A line for each combination, and how its run ended."""
    failed = sum(outcome != "finished" for _, outcome in outcomes)
    width = max(len(combination) for combination, _ in outcomes)
    lines = [f"  {combination:{width}}  {outcome}" for combination, outcome in outcomes]
    return "\n".join([f"{failed} of {len(outcomes)} runs failed:", *lines])


def _with_folder(words: list[str], swept: list[str], settings: Settings) -> list[str]:
    """The words, with an experiment named after what is swept, so that its seeds share a folder."""
    plain = [said(word).replace("'", "") for word in swept]
    varied = sorted(word for word in plain if not word.startswith(("seed=", "path=")))
    if not varied or settings.path is not None:
        return words
    folder = ",".join(re.sub(r"\\?[/:]", "-", word) for word in varied)
    others = [word for word in words if not word.lstrip("+").startswith("experiment=")]
    return [*others, f"experiment='{settings.experiment}/{folder}'"]

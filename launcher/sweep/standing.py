"""How a sweep's runs stand before it starts: done, going on elsewhere, or to be started."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ...replay.errors import ConfigError
from ..pictures.status import RUNNING, is_held, read_status, standing
from .trial import Outcome, Trial


def done(trial: Trial) -> Outcome | None:
    """The outcome of a run that has ended well before; None: it has to be started, or is going on."""
    found = read_status(trial.path)
    # A run that a callback has stopped continues, as on its own; one that a search has pruned is over.
    ends = ("finished",) if trial.study is None else ("finished", "stopped")
    if found is None or found.status not in ends or is_live(trial.path):
        return None
    return Outcome(found.status, found.metrics)


def is_live(path: Path) -> bool:
    """Whether a process, maybe of another machine, is writing to this run directory."""
    if is_held(path):
        return True
    found = standing(path)
    return found is not None and found.status == RUNNING


def move_aside(trials: Iterable[Trial]) -> list[Path]:
    """Move earlier runs out of the way of a sweep that starts over; returns where they are now.

    Raises:
        ConfigError: If some of them are going on. Nothing is moved then.
    """
    paths = [trial.path for trial in trials if _has_run(trial.path)]
    if live := [path for path in paths if is_live(path)]:
        raise ConfigError(
            f"{len(live)} of the runs are going on in another process, such as {live[0]}. Wait for them, or "
            "add resume=true."
        )
    moved = []
    for path in paths:
        number = 1
        while os.path.lexists(aside := path.with_name(f"{path.name}.{number}")):
            number += 1
        path.rename(aside)
        moved.append(aside)
    return moved


def _has_run(path: Path) -> bool:
    return any((path / name).exists() for name in ("config.yaml", "checkpoints"))

"""How a sweep's runs stand before it starts: done, going on elsewhere, or to be started."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout

from ...replay.errors import ConfigError
from .trial import Outcome, Trial, read_status

_LOCK = ".lock"  # As `record/directory.py` has it, which imports torch.
_DONE = ("finished", "stopped")


def done(trial: Trial) -> Outcome | None:
    """The outcome of a run that has ended well before; None: it has to be started, or is going on."""
    status, metrics = read_status(trial.path)
    if status not in _DONE or is_live(trial.path):
        return None
    return Outcome(status, metrics)


def is_live(path: Path) -> bool:
    """Whether a process is writing to this run directory."""
    if not (path / _LOCK).exists():
        return False
    lock = FileLock(path / _LOCK)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return True
    lock.release()
    return False


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

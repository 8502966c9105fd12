"""A run's directory: one writer, no partial files, and no earlier run overwritten."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ...replay import ConfigError

_LOCK = ".lock"
# A run that is closing may remove the lock file that the next one has just opened, which then tries again.
# A run that is still working holds it for longer.
_LOCK_SECONDS = 0.2


class RunDirectory:
    """Claims `path` for one run, and removes what it made if the run fails before its first step.

    Args:
        path: The run directory, absolute.
        resume: Continue an earlier run. Otherwise an earlier run is moved aside to `<path>.1`, `.2`,
            ..., by `start()`.

    Raises:
        ConfigError: If the path cannot be written or another run is writing there.
    """

    def __init__(self, path: Path, *, resume: bool):
        self.path, self.resume, self.started = path, resume, False
        self._made: list[Path] = []
        self._lock: FileLock | None = None
        try:
            self._made = [p for p in (path, *path.parents) if not os.path.exists(p)]
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(path / _LOCK)
        except Timeout as error:
            raise ConfigError(
                f"Another run is writing to {path}. Set another seed, experiment or path."
            ) from error
        except OSError as error:
            self._remove_made()
            raise ConfigError(
                f"Cannot write the run to {path} ({error.strerror or error}). Set another path=."
            ) from error

    def reopen(self) -> None:
        """Claim the directory again after `close`, for a run that continues.

        Raises:
            ConfigError: If another run is writing there, or the directory cannot be written.
        """
        try:
            self._lock = _locked(self.path / _LOCK)
        except Timeout as error:
            raise ConfigError(f"Another run is writing to {self.path}.") from error
        except OSError as error:
            raise ConfigError(
                f"Cannot write to {self.path} ({error.strerror or error})."
            ) from error

    @property
    def has_run(self) -> bool:
        """Whether an earlier run wrote here."""
        return (self.path / "config.yaml").exists()

    def start(self, config_yaml: str | None) -> Path | None:
        """Write `config.yaml`, now that a first step has succeeded.

        Args:
            config_yaml: Its text; None: it stays as it is.

        Returns:
            Where an earlier run was moved to, if there was one.
        """
        aside = self._move_aside() if self.has_run and not self.resume else None
        self.started = True
        if config_yaml is not None:
            self.describe(config_yaml)
        return aside

    def describe(self, config_yaml: str) -> None:
        """Write `config.yaml` again, with other text."""
        write_whole(self.path / "config.yaml", config_yaml)

    def _move_aside(self) -> Path:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        aside.mkdir()
        # Checkpoints first and config.yaml last: if we are killed in between, what remains is either still
        # the old run or nothing that a resume could continue.
        order = {"checkpoints": 0, "config.yaml": 2}
        for entry in sorted(self.path.iterdir(), key=lambda entry: order.get(entry.name, 1)):
            if entry.name != _LOCK:
                entry.rename(aside / entry.name)
        return aside

    def status(self, **fields: Any) -> None:
        """Write `status.json` atomically. NaN and infinity, which JSON lacks, become null."""
        text = json.dumps(_finite(fields), indent=1, allow_nan=False)
        write_whole(self.path / "status.json", text + "\n")

    def earlier_tasks(self) -> list[dict[str, Any]]:
        """The `tasks` of the resumed run's `status.json`; empty if there are none, or it cannot be read."""
        try:
            tasks = json.loads((self.path / "status.json").read_text())["tasks"]
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return tasks if self.resume and isinstance(tasks, list) else []

    def close(self) -> None:
        """Release the lock, and remove the folders that were made for a run that never started."""
        if self._lock is None:
            return
        if os.name == "posix":  # Windows cannot remove an open file; there, `release` does it.
            (self.path / _LOCK).unlink(missing_ok=True)
        self._lock.release()
        self._lock = None
        if not self.started:
            self._remove_made()

    def _remove_made(self) -> None:
        for path in self._made:
            try:
                path.rmdir()
            except OSError:
                continue  # Missing, or not empty: another program uses it now.


def _finite(value: object) -> object:
    """`value` with every non-finite float replaced by None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _locked(path: Path) -> FileLock:
    """Acquire the lock; the system releases that of a killed run.

    Raises:
        Timeout: If another run holds it.
    """
    # Not thread-local: garbage collection may close an abandoned run in any thread.
    lock = FileLock(path, thread_local=False)
    lock.acquire(timeout=_LOCK_SECONDS)
    return lock


def write_whole(path: Path, text: str) -> None:
    """Replace a file atomically: readers find the old text or the new one, even after a kill.

    It is not synced to the disk, which would cost a short run more than its steps. What must survive a
    crash of the machine is synced with each checkpoint.
    """
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "w", newline="") as file:
        file.write(text)
    os.replace(partial, path)

"""A run's directory: one writer, nothing half-made, nothing lost."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ...replay import ConfigError

_LOCK = ".lock"
# A run that is just closing removes the file that the next one has opened; that one tries again. Another
# run at work is there for longer.
_LOCK_SECONDS = 0.2


class RunDirectory:
    """Claims `path` for one run, and gives it back clean when the run fails before its first step.

    Args:
        path: The run directory, absolute.
        resume: Continue what is there. Otherwise an earlier run is moved aside to `<path>.1`, `.2`,
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
                f"Another run is writing to {path}. Give another seed, experiment or path."
            ) from error
        except OSError as error:
            self._remove_made()
            raise ConfigError(
                f"Cannot write the run to {path} ({error.strerror or error}). Give another path=."
            ) from error

    def reopen(self) -> None:
        """Claim the directory again after `close`, for a run that goes on.

        Raises:
            ConfigError: If another run is writing there, or it cannot be written.
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

    def start(self, config_yaml: str) -> Path | None:
        """Write `config.yaml`, now that a first step has succeeded.

        Returns:
            Where an earlier run was moved to, if there was one.
        """
        aside = self._move_aside() if self.has_run and not self.resume else None
        self.started = True
        write_whole(self.path / "config.yaml", config_yaml)
        return aside

    def _move_aside(self) -> Path:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        aside.mkdir()
        # Checkpoints first and config.yaml last: killed in between, what is left here is either still
        # the old run or none that could be continued.
        order = {"checkpoints": 0, "config.yaml": 2}
        for entry in sorted(self.path.iterdir(), key=lambda entry: order.get(entry.name, 1)):
            if entry.name != _LOCK:
                entry.rename(aside / entry.name)
        return aside

    def status(self, **fields: Any) -> None:
        """Write `status.json`, whole; JSON has no NaN and no infinity, which are null there."""
        text = json.dumps(_finite(fields), indent=1, allow_nan=False)
        write_whole(self.path / "status.json", text + "\n")

    def earlier_tasks(self) -> list[dict[str, Any]]:
        """What `status.json` says of the tasks of the run that is resumed."""
        try:
            tasks = json.loads((self.path / "status.json").read_text())["tasks"]
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return tasks if self.resume and isinstance(tasks, list) else []

    def close(self) -> None:
        """Let others write here; remove what was made for a run that never started."""
        if self._lock is None:
            return
        if os.name == "posix":  # Windows removes no open file; there it is removed by the release.
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
                continue  # Not there, or not empty: then it is somebody else's now.


def _finite(value: Any) -> Any:
    """`value` with None for every number that is not finite."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _locked(path: Path) -> FileLock:
    """The lock, acquired; Timeout if another run has it. The system frees that of a run that was killed."""
    # Shared by threads: Python may collect, and so close, a dropped run in any of them.
    lock = FileLock(path, thread_local=False)
    lock.acquire(timeout=_LOCK_SECONDS)
    return lock


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader, or a run after a kill, finds the old or the new one.

    It is not synced to the disk, which would cost a short run more than its steps; what must
    outlive the machine is synced with each checkpoint.
    """
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "w", newline="") as file:
        file.write(text)
    os.replace(partial, path)

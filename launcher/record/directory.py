"""A run's directory: one writer, no partial files, and no earlier run overwritten."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ...replay import ConfigError, NotSaved
from ...replay.files import (
    open_regular,
    overwrite,
    read_text,
    remove_partial,
    replacing,
)
from ..pictures.status import LOCK as _LOCK
from ..pictures.status import RUNNING, now, read_status
from .owner import FILE as _OWNER
from .owner import Owner, last_writer, new_owner, owner_of
from .place import check_links

_APPENDED = ("train.csv", "eval.csv")
# A run that is closing may remove the lock file that the next one has just opened, which then tries again.
# A run that is still working holds it for longer.
_LOCK_SECONDS = 0.2
# A process that was killed may leave others that it had forked, such as readers of data: they hold the lock
# until they notice.
_ORPHANS_SECONDS = 10.0


class RunDirectory:
    """Claims `path` for one run, and removes what it made if the run fails before its first step.

    Args:
        path: The run directory, absolute.
        resume: Continue an earlier run. Otherwise an earlier run is moved aside to `<path>.1`, `.2`,
            ..., by `start()`.

    Attributes:
        owner: This process, as the one that writes there.

    Raises:
        ConfigError: If the path cannot be written, another run is writing there, or there is a link.
    """

    def __init__(self, path: Path, *, resume: bool):
        self.path, self.resume, self.started = path, resume, False
        self._made: list[Path] = []
        self._lock: FileLock | None = None
        self._claimed: tuple[int, int] | None = None
        try:
            self._made = [p for p in (path, *path.parents) if not os.path.exists(p)]
            check_links(path)
            path.mkdir(parents=True, exist_ok=True)
            self._claim(resume=resume)
            _remove_partial(path)
            for name in _APPENDED:
                _make_own(path / name)
        except Timeout as error:
            raise ConfigError(
                f"Another run is writing to {path}{_holder(path / _LOCK)}. Set another seed, experiment or "
                "path."
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
            check_links(self.path)
            self._claim(resume=True, attempt=self.owner.attempt)
        except Timeout as error:
            raise ConfigError(
                f"Another run is writing to {self.path}{_holder(self.path / _LOCK)}."
            ) from error
        except OSError as error:
            raise ConfigError(
                f"Cannot write to {self.path} ({error.strerror or error})."
            ) from error

    def _claim(self, *, resume: bool, attempt: int | None = None) -> None:
        """Lock the directory, and say there whose it is.

        Args:
            resume: Whether the run there is continued.
            attempt: How often it was begun or resumed; None: once more than its status says.
        """
        self._lock = _locked(self.path / _LOCK)
        self._claimed = _identity(self.path)
        self._before = last_writer(self.path)
        self.owner = new_owner(self.path, resume=resume)
        if attempt is not None:
            self.owner = replace(self.owner, attempt=attempt)
        self.owner.claim(self.path)
        self._named = _identity(self.path / _OWNER)

    @property
    def lost(self) -> bool:
        """Whether the directory was removed or moved, or another is in its place."""
        return _identity(self.path) != self._claimed

    @property
    def taken_by(self) -> Owner | None:
        """The process that writes to the directory now, in place of this one; None: none does."""
        # The newcomer may have left again: then its status tells.
        found = owner_of(self.path) or last_writer(self.path)
        return None if found in (self.owner, self._before) else found

    def check_owner(self) -> None:
        """Raise NotSaved if another process has taken the directory over: what they write must not be mixed.

        Raises:
            NotSaved: Naming it.
        """
        if (other := self.taken_by) is not None:
            raise NotSaved(
                f"The run directory {self.path} belongs to {other} now (attempt {other.attempt}), which has "
                "begun or resumed a run there while this one was writing. This run has ended, and nothing "
                "more of it is saved."
            )

    def check(self) -> None:
        """Raise NotSaved if the directory is lost: what is written would end nowhere, or in another run.

        Raises:
            NotSaved: Also if another process has taken it over.
        """
        if self.lost:
            raise NotSaved(
                f"The run directory {self.path} was removed or moved while the run was writing to it, so the "
                "run has ended: nothing more could be saved there."
            )
        if _identity(self.path / _OWNER) != self._named:  # Cheaper than to read it, at every row.
            self.check_owner()

    @property
    def has_run(self) -> bool:
        """Whether an earlier run wrote here."""
        return any((self.path / name).exists() for name in ("config.yaml", "checkpoints"))

    def start(self) -> Path | None:
        """Keep what is written from now on, now that a first step has succeeded.

        Returns:
            Where an earlier run was moved to, if there was one.
        """
        aside = self._move_aside() if self.has_run and not self.resume else None
        self.started = True
        return aside

    def write_config(self, text: str) -> None:
        """Write `config.yaml`."""
        write_whole(self.path / "config.yaml", text)

    def _move_aside(self) -> Path:
        number = 1
        while os.path.lexists(aside := self.path.with_name(f"{self.path.name}.{number}")):
            number += 1
        aside.mkdir()
        # Checkpoints first and config.yaml last: if we are killed in between, what remains is either still
        # the old run or nothing that a resume could continue.
        order = {"checkpoints": 0, "config.yaml": 2}
        for entry in sorted(self.path.iterdir(), key=lambda entry: order.get(entry.name, 1)):
            if entry.name not in (_LOCK, _OWNER):
                entry.rename(aside / entry.name)
        return aside

    def status(self, **fields: Any) -> None:
        """Write `status.json` atomically, with the process and the time; NaN and infinity become null.

        Where there is no room for a new file, the old one is written over.

        Raises:
            OSError: If that is impossible too.
        """
        path = self.path / "status.json"
        whole = _json({**fields, **asdict(self.owner), "updated": now()})
        try:
            write_whole(path, whole)
        except OSError:
            if not overwrite(path, whole):
                kept = ("status", "step", "reason")
                brief = {key: value for key, value in fields.items() if key in kept}
                if not overwrite(path, _json(brief)):
                    raise

    def correct_status(self) -> None:
        """Say of the run that is there that it was interrupted, if it says it is running: its process died.

        For a process that has claimed the directory, and leaves without having begun.
        """
        found = read_status(self.path)
        if self.lost or self.taken_by is not None or found is None or found.status != RUNNING:
            return
        with contextlib.suppress(OSError, ValueError, TypeError):
            fields = dict(json.loads(read_text(self.path / "status.json")))
            fields |= {"status": "interrupted", "reason": "Its process died."}
            write_whole(self.path / "status.json", _json(fields))

    def earlier_tasks(self) -> list[dict[str, Any]]:
        """The `tasks` of the resumed run's `status.json`; empty if there are none, or it cannot be read."""
        try:
            tasks = json.loads(read_text(self.path / "status.json"))["tasks"]
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return tasks if self.resume and isinstance(tasks, list) else []

    def close(self) -> None:
        """Release the lock, and remove the folders that were made for a run that never started."""
        if self._lock is None:
            return
        if not self.lost and self.taken_by is None:
            self.owner.leave(self.path)
            # Windows cannot remove an open file; there, `release` does it.
            if os.name == "posix":
                with contextlib.suppress(OSError):  # Read-only by now, for example.
                    (self.path / _LOCK).unlink()
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


def _json(fields: dict[str, Any]) -> str:
    return json.dumps(_finite(fields), indent=1, allow_nan=False) + "\n"


def _finite(value: object) -> object:
    """`value` with every non-finite float replaced by None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _identity(path: Path) -> tuple[int, int] | None:
    """Tells a directory from another one of the same name; None: there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _locked(path: Path) -> FileLock:
    """Acquire the lock; the system releases that of a killed run.

    Raises:
        Timeout: If another run holds it.
    """
    # Not thread-local: garbage collection may close an abandoned run in any thread.
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout:
        held_by = owner_of(path.parent)
        if held_by is None or not held_by.is_gone:
            raise
        lock.acquire(timeout=_ORPHANS_SECONDS)
    return lock


def _holder(path: Path) -> str:
    """Words that name the process which holds a lock, where Linux tells; else nothing."""
    try:
        at = os.stat(path)
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return ""
    ours = f"{os.major(at.st_dev):02x}:{os.minor(at.st_dev):02x}:{at.st_ino}"
    pids = [words[4] for line in locks if ours in (words := line.split()) and len(words) > 4]
    return f" (process {pids[0]})" if pids and pids[0].isdigit() else ""


def _make_own(path: Path) -> None:
    """Copy a file that is also elsewhere, in a copy of the run made of hard links, say."""
    if path.is_file() and path.stat().st_nlink > 1:
        with replacing(path, "wb") as copy, open_regular(path) as file:
            shutil.copyfileobj(file, copy)


def _remove_partial(path: Path) -> None:
    """Remove what a killed run left half-written."""
    for folder in (path, *(path / name for name in ("plots", "plots/samples", "videos"))):
        if folder.is_dir():
            remove_partial(folder)


def write_whole(path: Path, text: str) -> None:
    """Replace a file atomically: readers find the old text or the new one, even after a kill.

    It is not synced to the disk, which would cost a short run more than its steps. What must survive a
    crash of the machine is synced with each checkpoint.
    """
    with replacing(path, newline="") as file:
        file.write(text)

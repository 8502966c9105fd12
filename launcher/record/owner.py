"""The process that a run directory belongs to: the newest one that has locked it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from ...replay.files import read_text, replacing
from ..pictures.status import is_alive, now, read_status

FILE = ".owner"


@dataclass(frozen=True)
class Owner:
    """Who writes to a run directory.

    Locks of network file systems may hold on one machine only, and a lock file may be removed. So the newest
    process that has locked a directory also writes its name there, and any other stops writing.

    Attributes:
        host: Name of the machine.
        pid: The process.
        attempt: How often the run was begun or resumed by a process, from 1.
        started: When this attempt began, ISO 8601, UTC.
    """

    host: str
    pid: int
    attempt: int
    started: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def is_gone(self) -> bool:
        """Whether it was a process of this machine, and has died."""
        return self.host == socket.gethostname() and not is_alive(self.pid)

    def claim(self, run: Path) -> None:
        """Write the name into a directory that is locked; a full disk is no reason to refuse a run."""
        with contextlib.suppress(OSError), replacing(run / FILE) as file:
            json.dump(asdict(self), file)

    def leave(self, run: Path) -> None:
        """Remove the name."""
        with contextlib.suppress(OSError):
            (run / FILE).unlink()


def new_owner(run: Path, *, resume: bool) -> Owner:
    """This process, as the owner of a directory from now on.

    Args:
        run: The directory.
        resume: Whether it continues the run there.
    """
    earlier = read_status(run) if resume else None
    attempt = earlier.attempt + 1 if earlier is not None else 1
    return Owner(socket.gethostname(), os.getpid(), attempt, now())


def owner_of(run: Path) -> Owner | None:
    """The process that a directory belongs to, or belonged to when it was killed; None: none is named."""
    return _named_in(run / FILE)


def last_writer(run: Path) -> Owner | None:
    """The process that wrote the status of a run; None: none is named."""
    return _named_in(run / "status.json")


def _named_in(path: Path) -> Owner | None:
    try:
        found = json.loads(read_text(path))
        return Owner(
            str(found["host"]), int(found["pid"]), int(found["attempt"]), str(found["started"])
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None

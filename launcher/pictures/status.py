"""How a run stands: what its status.json says, and whether the process that wrote it is still at work.

Only files are read, and torch is not imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ...replay.files import open_regular, read_text

try:
    import fcntl
except ImportError:  # Windows.
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
RUNNING, DIED = "running", "died"
BY_SEARCH = "the search"
"""How the reason begins where a search has stopped a run before its end."""

_SILENT_S = 900.0  # Without a word for so long, a run of another machine is taken for dead.


@dataclass(frozen=True)
class Status:
    """What status.json says of a run.

    Attributes:
        status: `running`, `finished`, `stopped`, `interrupted`, `failed` or `diverged`; as `standing` returns
            it also `died`: it says `running`, and nothing runs.
        step: The step it was at.
        task: Number of the task it was in, from 0.
        metrics: The newest evaluation's; NaN where the file says null.
        reason: Why it has ended; empty for most.
        host: Name of the machine that ran it; empty in runs of earlier versions.
        pid: Its process; None: not known.
        attempt: How often the run was begun or resumed by a process, from 1.
        started: When this attempt began; None: not known.
        updated: When the file was written; None: not known.
    """

    status: str
    step: int
    task: int
    metrics: Mapping[str, float]
    reason: str
    host: str
    pid: int | None
    attempt: int
    started: datetime | None
    updated: datetime | None


def standing(run: Path) -> Status | None:
    """How a run stands; None: it has no status yet.

    A run that says it is running is believed if its directory is locked. Where it is not, the run has died,
    unless it is on another machine (whose locks may not be seen from here) and wrote within 15 minutes.

    Args:
        run: Its directory.
    """
    found = read_status(run)
    if found is None or found.status != RUNNING or is_live(run, found):
        return found
    # It may have ended since it was read.
    again = read_status(run)
    if again is None or again.status != RUNNING or is_live(run, again):
        return again
    return Status(**{**vars(again), "status": DIED})


def is_live(run: Path, found: Status) -> bool:
    """Whether the process of a run that says it is running is still at work."""
    held = is_held(run)
    if held:
        return True
    if found.host and found.host != socket.gethostname():
        silent = None if found.updated is None else datetime.now(UTC) - found.updated
        return silent is not None and silent.total_seconds() < _SILENT_S
    return held is None and found.pid is not None and is_alive(found.pid)


def is_held(run: Path) -> bool | None:
    """Whether a process has locked a run directory; None: the system does not tell."""
    if fcntl is None:
        return None
    try:
        file = open_regular(run / LOCK)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    with file:
        try:
            # Shared: two that look at the same time do not take each other for the run.
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return None
    return False


def is_alive(pid: int) -> bool:
    """Whether a process of this machine exists, and is more than an entry that its parent has not read."""
    if os.name != "posix":
        return True  # There, the signal 0 would end it.
    with contextlib.suppress(OSError, IndexError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] not in "ZX"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def read_status(run: Path) -> Status | None:
    """What a run's status.json says; None: there is none, or it cannot be read.

    Args:
        run: Its directory.
    """
    try:
        found = json.loads(read_text(run / "status.json"))
        metrics = _numbers(found.get("metrics") or {})
        pid = found.get("pid")
        return Status(
            status=str(found["status"]),
            step=int(found.get("step") or 0),
            task=int(found.get("task") or 0),
            metrics=metrics,
            reason=str(found.get("reason") or ""),
            host=str(found.get("host") or ""),
            pid=None if pid is None else int(pid),
            attempt=int(found.get("attempt") or 1),
            started=_time(found.get("started")),
            updated=_time(found.get("updated")),
        )
    # A folder from elsewhere may hold anything.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def now() -> str:
    """The time as status.json has it: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat()


def _numbers(values: Mapping[str, object]) -> dict[str, float]:
    """The numbers among some values; null is NaN, or was infinite."""
    known = {k: v for k, v in values.items() if v is None or isinstance(v, (int, float))}
    return {str(k): float("nan") if v is None else float(v) for k, v in known.items()}


def _time(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)

"""Keeps a run: starts its directory, shows it, saves it, and stops it when asked to."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from ..learn.strategies import Strategies
from .checkpoint import Checkpoints
from .console import Console
from .directory import RunDirectory
from .log import Journal
from .progress import Progress

_SAVE_SECONDS = 60.0  # Between checkpoints when save_every is not given.
_SAVING_SHARE = 0.05  # Of a run's time, at most: a large replay takes long to write.
_SHOW_SECONDS = 0.2


class Interrupted(BaseException):
    """A signal asked the run to stop.

    Attributes:
        signum: Which one.
        saved: Whether a checkpoint was written.
    """

    def __init__(self, signum: int, *, saved: bool):
        super().__init__(signal.Signals(signum).name)
        self.signum, self.saved = signum, saved


class Keeper:
    """What happens around the steps of a run.

    Args:
        snapshot: Everything a checkpoint holds, as `Checkpoints.save` takes it.
        is_good: Whether that is worth keeping: a ruined model must not push out a good one.
        save_every: Steps between checkpoints; None: once a minute, or less often where that would
            take more than a twentieth of the time. The ends of tasks are saved by that rule too.
        newest_loss: Gives the loss that the live line shows, or None.
        begun: Called once the directory is the run's.

    Attributes:
        tasks: What each task took, those of before a resumption too: `seconds` (since the run was
            last resumed), `steps`, `name` of an environment, and `memory_bytes` and `parameters` of its
            strategies.
    """

    def __init__(
        self,
        directory: RunDirectory,
        checkpoints: Checkpoints,
        journal: Journal,
        console: Console,
        *,
        at: Progress,
        config_yaml: str,
        snapshot: Callable[[], dict[str, Any]],
        is_good: Callable[[], bool],
        save_every: int | None,
        newest_loss: Callable[[], Any],
        begun: Callable[[], None] | None = None,
    ):
        self.directory, self.checkpoints, self.journal = directory, checkpoints, journal
        self.console, self.at = console, at
        self._config_yaml, self._snapshot = config_yaml, snapshot
        self._save_every, self._newest_loss, self._begun = save_every, newest_loss, begun
        self._is_good = is_good
        self._received: int | None = None
        self._handlers: dict[int, Any] = {}
        self._shown = 0.0
        self._saved_at, self._saved_step = time.monotonic(), at.step
        self._pause = _SAVE_SECONDS
        self._save_took = 0.0  # Seconds that the last save took.
        self.tasks: list[dict[str, Any]] = directory.earlier_tasks()[: at.task]
        self._task_began = time.monotonic()

    def __enter__(self) -> Keeper:
        """Catch SIGINT and SIGTERM (in the main thread; elsewhere Python cannot)."""
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._handlers[signum] = signal.signal(signum, self._receive)
        self._task_began = time.monotonic()  # Time that the caller spent in between does not count.
        return self

    def __exit__(self, *_: Any) -> None:
        for signum, handler in self._handlers.items():
            # None: it was installed by a library in C, and Python cannot put it back.
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        self._handlers = {}

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self._received is not None:
            raise KeyboardInterrupt  # Asked twice: do not wait for the step to end.
        self._received = signum

    def start(self) -> None:
        """The first step has succeeded: from now on the run leaves traces."""
        if self.directory.started:
            return
        aside = self.directory.start(self._config_yaml)
        if aside is not None:
            self.console.note(f"The earlier run in {self.directory.path} was moved to {aside}.")
        self._status("running")
        if self._begun is not None:
            self._begun()

    def stepped(self) -> None:
        """After each step, before its rows are written."""
        if not self.directory.started:
            self.start()
        now = time.monotonic()
        if now - self._shown > _SHOW_SECONDS:
            self._shown = now
            self.console.update(self.at, self._newest_loss())

    def settled(self) -> None:
        """After each step, when everything is consistent."""
        if self._received is not None:
            saved = self.save()
            self._status("interrupted")
            raise Interrupted(self._received, saved=saved)
        if self._save_every is None:
            if time.monotonic() - self._saved_at > self._pause:
                self.save()
        elif self.at.step - self._saved_step >= self._save_every:
            self.save()

    def evaluated(self) -> None:
        """After each evaluation."""
        self.console.evaluated(self.at)

    def task_ended(self, strategies: Strategies, *, last: bool, name: str | None = None) -> None:
        """After a task: save, unless tasks are too short for the time that it takes.

        Args:
            last: Whether it is the last one, after which the run is saved in any case.
            name: What it is called, or None.
        """
        self.start()
        now = time.monotonic()
        took: dict[str, Any] = {"steps": self.at.task_step, "seconds": now - self._task_began}
        if name is not None:
            took["name"] = name
        if strategies.active:
            took["memory_bytes"] = strategies.nbytes()
            if (parameters := strategies.parameters_used()) is not None:
                took["parameters"] = parameters
        self.tasks.append(took)
        self.console.task_ended(self.at, took)
        if last or now - self._saved_at >= self._save_took / _SAVING_SHARE:
            self.save()
        self._task_began = time.monotonic()
        self.settled()

    def save_newest(self) -> None:
        """Save what was learnt since the last checkpoint, if anything was."""
        if self.directory.started and self.at.step > self._saved_step:
            self.save()

    def save(self) -> bool:
        """Write a checkpoint, and the rows up to it before; returns whether it was worth it."""
        if not self._is_good():
            self.console.problem(f"Not saved at step {self.at.step}: a weight is NaN or infinite.")
            return False
        began = time.monotonic()
        self.journal.sync()
        self.checkpoints.save(self._snapshot())
        self._saved_at, self._saved_step = time.monotonic(), self.at.step
        self._save_took = self._saved_at - began
        self._pause = max(_SAVE_SECONDS, self._save_took / _SAVING_SHARE)
        self._status("running")
        return True

    def finish(self, status: str, **details: Any) -> None:
        """The run's last word in `status.json`."""
        if self.directory.started:
            self._status(status, **details)

    def _status(self, status: str, **details: Any) -> None:
        self.directory.status(
            status=status,
            step=self.at.step,
            task=self.at.task,
            metrics=self.at.metrics,
            tasks=self.tasks,
            **details,
        )

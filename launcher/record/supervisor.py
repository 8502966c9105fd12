"""Supervises a run: its directory, checkpoints, journal, console, signals, and how it has ended."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from torch import Tensor

from ...replay import ConfigError, Diverged
from ...replay.randomness import kept_randomness
from ..settings.plan import Plan
from .checkpoint import Checkpoints
from .console import Console
from .directory import RunDirectory
from .log import CSV, Journal, Row, Writer
from .pictures import Spared
from .progress import Progress
from .reported import Reported
from .trackers import Tracker

_SAVE_SECONDS = 60.0  # Between checkpoints when save_every is not given.
_SAVING_SHARE = 0.05  # Of a run's time, at most: a large replay takes long to write.
_SHOW_SECONDS = 0.2


class Supervised(Protocol):
    """What a supervisor sees of a session.

    Attributes:
        path: The run directory.
        console: Where a person is told.
        progress: Where the run is.
        first_step: The step at which this process began, or continued, the run.
    """

    path: Path
    console: Console
    progress: Progress
    first_step: int

    @property
    def report(self) -> Reported:
        """What there is to say of the run."""

    @property
    def num_tasks(self) -> int:
        """Number of tasks."""

    @property
    def finished(self) -> bool:
        """Whether all of them are learnt."""

    def awake(self) -> AbstractContextManager[None]:
        """Inside, the model is as it last learnt, even if it rests otherwise."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that continuing exactly needs; tensors may be the session's own."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there."""

    def is_finite(self) -> bool:
        """Whether the state is worth keeping."""

    def check_fresh(self) -> None:
        """Refuse what another run has used already."""

    def newest_loss(self) -> Tensor | float | None:
        """The loss that the live line shows."""


class Interrupted(BaseException):
    """A signal asked the run to stop.

    Attributes:
        signum: Which one.
        saved: Whether a checkpoint was written.
    """

    def __init__(self, signum: int, *, saved: bool):
        super().__init__(signal.Signals(signum).name)
        self.signum, self.saved = signum, saved


class Supervisor:
    """What happens around the steps of a run.

    Use as a context manager, or call `close`: the directory is claimed, and files are open.

    Attributes:
        status: "open", "waiting" for the data of a later task, or how the run has ended, as `status.json`
            says it.
        journal: The rows of train.csv and eval.csv.
        tasks: What each task took, those before a resumption included: `steps`, `seconds` (since the run
            was last resumed), and what `Report.costs` says.
        closed: Whether the directory is released.

    Raises:
        ConfigError: If the directory cannot be written, or another run is writing there.
    """

    def __init__(self, plan: Plan, session: Supervised):
        self.plan, self.session, self.status = plan, session, "open"
        self.progress, self.console = session.progress, session.console
        with ExitStack() as opened:
            self.directory = RunDirectory(session.path, resume=plan.resume)
            opened.callback(self.directory.close)
            self.journal = _journal(plan, session.path, tasks=session.num_tasks)
            opened.callback(self.journal.close)
            opened.callback(self.console.stop)
            self.console.header(session.report.header())
            for problem in session.report.problems():
                self.console.problem(problem)
            self._opened = opened.pop_all()
        self.checkpoints = Checkpoints(session.path / "checkpoints")
        self.tasks: list[dict[str, Any]] = []
        self.closed = False
        self._claimed: tuple[str, int] | None = None  # Our newest checkpoint, when we closed.
        self._received: int | None = None  # A signal.
        self._handlers: dict[int, Any] = {}
        self._shown = 0.0
        self._saved_at, self._saved_step = time.monotonic(), 0
        self._pause, self._save_took = _SAVE_SECONDS, 0.0  # Seconds.
        self._task_began, self._seconds = time.monotonic(), 0.0

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def resume(self) -> None:
        """Continue from the newest valid checkpoint, if the plan asks for it and there is one.

        Raises:
            CheckpointError, ConfigError: If it belongs to another model or sequence.
        """
        state = self._newest_state() if self.directory.resume else None
        if state is None:
            self.directory.resume = False
            self.session.check_fresh()
            return
        self.session.load_state_dict(state)
        self.journal.expect(self.session.num_tasks)
        self.journal.load_state_dict(state["journal"])
        self.tasks = self.directory.earlier_tasks()[: self.progress.task]
        self._saved_at, self._saved_step = time.monotonic(), self.progress.step

    def _newest_state(self) -> dict[str, Any] | None:
        state, problems = self.checkpoints.newest()
        for problem in problems:
            self.console.problem(f"Passed over: {problem}")
        if state is None:
            self.console.note(
                f"No checkpoint to resume from in {self.session.path} yet: starting from scratch."
            )
        return state

    # ------------------------------------------------------------------------- while it learns

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, signals stop the run between two steps; whatever goes wrong is the run's end.

        Raises:
            Diverged: With the newest checkpoint and what to try.
        """
        began = self._task_began = time.monotonic()  # The caller's time in between does not count.
        try:
            with self._signals():
                yield
                self.start()
        except Diverged as error:
            self._end("diverged", reason=str(error))
            raise Diverged(
                f"{error} {self._last_good()} Try a smaller lr, or clip_grad=1."
            ) from None
        except Exception as error:
            self._end("failed", reason=f"{type(error).__name__}: {error}")
            raise
        except Interrupted as error:
            self.status = "interrupted"  # Which was written with the checkpoint.
            self.console.stop()
            outcome = f"saved to {self.session.path}" if error.saved else "not saved"
            self.console.note(f"Interrupted by {error} at step {self.progress.step}; {outcome}.")
            raise
        except BaseException as error:  # A second signal, or SystemExit in the user's code.
            self._end("interrupted", reason=type(error).__name__)
            raise
        self._seconds += time.monotonic() - began
        self.console.stop()

    def _last_good(self) -> str:
        kept = self.checkpoints.numbered()
        return f"The last good checkpoint is {kept[0]}." if kept else "There is no checkpoint yet."

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Catch SIGINT and SIGTERM (in the main thread; elsewhere Python cannot)."""
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._handlers[signum] = signal.signal(signum, self._receive)
        try:
            yield
        finally:
            for caught, handler in self._handlers.items():
                # None: it was installed by a library in C, and Python cannot put it back.
                signal.signal(caught, signal.SIG_DFL if handler is None else handler)
            self._handlers = {}

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self._received is not None:
            raise KeyboardInterrupt  # Asked twice: do not wait for the step to end.
        self._received = signum

    def start(self) -> None:
        """The first step has succeeded: from now on the run leaves traces."""
        if self.directory.started:
            return
        aside = self.directory.start(self.plan.yaml())
        if aside is not None:
            self.console.note(f"The earlier run in {self.directory.path} was moved to {aside}.")
        self._write_status("running")
        if self.plan.render_model:
            draw = Spared(
                self.session.report.draw_model, "picture of the model", self.console.problem
            )
            draw(self.console)

    def stepped(self) -> None:
        """After each step, before its rows are written."""
        if not self.directory.started:
            self.start()
        now = time.monotonic()
        if now - self._shown > _SHOW_SECONDS:
            self._shown = now
            self.console.update(self.progress, self.session.newest_loss())

    def check(self) -> None:
        """Between two steps: save if a checkpoint is due, stop if a signal came.

        Raises:
            Interrupted: Once the run is saved.
        """
        if not self.directory.started:
            return  # Nothing is learnt yet, so that nothing is lost.
        if self._received is not None:
            saved = self.save()
            self._write_status("interrupted")
            raise Interrupted(self._received, saved=saved)
        if self.plan.save_every is None:
            if time.monotonic() - self._saved_at > self._pause:
                self.save()
        elif self.progress.step - self._saved_step >= self.plan.save_every:
            self.save()

    def write(self, mode: str, row: Row) -> None:
        """Write a row, unless it is empty.

        Args:
            mode: "train" or "eval".
        """
        if row:
            self.journal.write(mode, **row)

    def evaluated(self, row: Row) -> None:
        """Write the row of an evaluation in mid-task, and show it."""
        if row:
            self.write("eval", row)
            self.console.evaluated(self.progress)

    def task_ended(self, task: int) -> None:
        """After a task: save, unless tasks are too short for the time that saving takes."""
        self.start()
        now, progress = time.monotonic(), self.progress
        took: dict[str, Any] = {
            "steps": progress.task_step,
            "seconds": now - self._task_began,
            **self.session.report.costs(task),
        }
        self.tasks.append(took)
        self.console.task_ended(progress, took)
        if self.session.finished or now - self._saved_at >= self._save_took / _SAVING_SHARE:
            self.save()
        self._task_began = time.monotonic()
        self.check()

    def save(self) -> bool:
        """Write a checkpoint, and the rows up to it before; returns whether it was worth it."""
        began = time.monotonic()
        with (
            self.session.awake()
        ):  # Until it is written: averaged weights take the place of its own.
            if not self.session.is_finite():
                at = self.progress.step
                self.console.problem(f"Not saved at step {at}: a weight is NaN or infinite.")
                return False
            self.journal.sync()
            state = {**self.session.state_dict(), "journal": self.journal.state_dict()}
            self.checkpoints.save(state)
        self._saved_at, self._saved_step = time.monotonic(), self.progress.step
        self._save_took = self._saved_at - began
        self._pause = max(_SAVE_SECONDS, self._save_took / _SAVING_SHARE)
        self._write_status("running")
        return True

    # ------------------------------------------------------------------------------ at its end

    def finish(self) -> None:
        """Report the end of a run whose tasks are all learnt, and draw its plots."""
        progress, console, session = self.progress, self.console, self.session
        if not session.finished:
            self._wait()
            return
        steps = progress.step - session.first_step
        with kept_randomness():  # Later tasks draw as if nothing had been drawn here.
            for problem in session.report.last_words(stepped=steps > 0):
                console.problem(problem)
            self.journal.close()
            self._end("finished")
            if self.plan.plot:
                draw = Spared(session.report.draw_run, "pictures of the run", console.problem)
                parameters = self.tasks[-1].get("parameters") if self.tasks else None
                draw(self.journal.history, progress, parameters=parameters)
            console.finished(progress, session.path, seconds=self._seconds, steps=steps)

    def _wait(self) -> None:
        """Pause a resumed run in the middle of a task whose data has not arrived yet."""
        task = self.session.report.world.tasks[self.progress.task].name
        reason = (
            f"Task {self.progress.task}, {task}, is half learnt. Call run.learn_task with the same data and "
            "name to continue it."
        )
        self._end("interrupted", reason=reason)
        self.status = "waiting"
        self.console.note(reason)

    def fail(self, reason: str) -> None:
        """Say that the run has failed."""
        self._end("failed", reason=reason)

    def close(self, reason: str = "", *, save: bool = True) -> None:
        """Release the directory, files and console; a run that has not ended is marked interrupted.

        Args:
            reason: What interrupted it.
            save: Whether to save what was learnt since the last checkpoint, if anything was.
        """
        if self.closed:
            return
        self.closed = True
        if self.status == "open":
            if save and self.directory.started and self.progress.step > self._saved_step:
                self.save()
            self._end("interrupted", reason=reason)
        self._opened.close()
        self._claimed = self._newest()

    @contextmanager
    def reclaiming(self) -> Iterator[None]:
        """Claim the directory again for another task; released if the block cannot read the task's data.

        Raises:
            ConfigError: If another run has replaced this one, or is writing there.
        """
        if self._claimed != self._newest():
            raise ConfigError(
                f"{self.session.path} no longer holds this run: another run replaced it. Give a run that is "
                "to be continued a separate path=."
            )
        self.directory.reopen()
        try:
            yield
        except BaseException:
            self.directory.close()
            raise

    def reopen(self, *, more_steps: int) -> None:
        """Continue a run that had ended, in a directory that was reclaimed.

        Args:
            more_steps: Steps that the added task takes.
        """
        self.status, self.closed, self._seconds = "open", False, 0.0
        self._opened.callback(self.directory.close)
        self._opened.callback(self.journal.close)
        self._opened.callback(self.console.stop)
        if self.console.total is not None:
            self.console.total += more_steps

    def _newest(self) -> tuple[str, int] | None:
        """Identifies the newest checkpoint among those of other runs at the same path."""
        kept = self.checkpoints.numbered()
        return (kept[0].name, (kept[0] / "manifest.json").stat().st_mtime_ns) if kept else None

    def _end(self, status: str, **details: Any) -> None:
        """The run's last word in `status.json`."""
        self.status = status
        if self.directory.started:
            self._write_status(status, **details)

    def _write_status(self, status: str, **details: Any) -> None:
        progress = self.progress
        self.directory.status(
            status=status,
            step=progress.step,
            task=progress.task,
            metrics=progress.metrics,
            tasks=self.tasks,
            **details,
        )


def _journal(plan: Plan, path: Path, *, tasks: int) -> Journal:
    """Rows in memory, in CSV files and in trackers, none of which is opened before the first row."""
    writers: list[Writer] = []
    for name in plan.loggers:
        if name == "csv":
            writers += [CSV(path / f"{m}.csv", mode=m, tasks=tasks) for m in ("train", "eval")]
        else:
            writers.append(Tracker(name, path, dict(plan.values)))
    return Journal(writers)

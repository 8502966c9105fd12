"""How a run ends: its final status, what is said of it, and what an error or a signal leaves behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ...replay import CheckpointError, ConfigError, Diverged, NotSaved
from ...replay.ranks import ranks
from ...replay.shown import shown
from ..pictures.status import RUNNING
from .directory import RunDirectory
from .divergence import divergence_behind, with_advice
from .history import History
from .output import write_error
from .saving import Saving
from .signals import Interrupted, Signals, mark_resumable
from .spared import Spared
from .supervised import Supervised


class Ending:
    """Writes how a run stands to status.json: "running" at first, and in the end what ended it.

    Args:
        session: The run.
        directory: Its directory.
        saving: Its checkpoints.
        signals: Those that ask it to stop.
        tasks: Cost of each task, which a supervisor adds to.

    Attributes:
        status: "open", "waiting" for the data of a later task, or the final status, as in `status.json`.
    """

    def __init__(
        self,
        session: Supervised,
        directory: RunDirectory,
        saving: Saving,
        signals: Signals,
        tasks: list[dict[str, Any]],
    ):
        self._session, self._directory, self._saving = session, directory, saving
        self._signals, self._tasks = signals, tasks
        self.status, self._written = "open", 0.0
        self._write = Spared(directory.status, "status.json could not be written", write_error)

    @property
    def resumable(self) -> bool:
        """Whether `resume=true` finds a checkpoint of this run."""
        ours = self._directory.started or self._directory.resume
        return ours and bool(self._saving.checkpoints.numbered())

    def running(self) -> None:
        """Write that the run goes on, and how far it is."""
        self._write_status(RUNNING)

    def goes_on(self, *, after: float) -> None:
        """Write that the run goes on, unless that was written in the last `after` seconds."""
        if time.monotonic() - self._written >= after:
            self.running()

    def end(self, status: str, **details: Any) -> None:
        """Write the final status, unless the run has left no traces yet."""
        self.status = status
        if self._directory.started:
            if self._directory.lost:  # Another run may be in its place.
                write_error(f"status.json could not be written: {self._directory.path} is gone.")
            else:
                self._write_status(status, **details)
        else:
            self._directory.correct_status()

    def _write_status(self, status: str, **details: Any) -> None:
        self._written = time.monotonic()
        if self._directory.taken_by is not None:
            return  # It is the other's status now.
        progress = self._session.progress
        self._write(
            status=status,
            step=progress.step,
            task=progress.task,
            metrics=progress.metrics,
            tasks=self._tasks,
            # The reason may quote an error's message, and that a secret.
            **{k: shown(v) if isinstance(v, str) else v for k, v in details.items()},
        )

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Runs the block with signals noted; whatever ends it becomes the run's final status.

        Raises:
            Diverged: The block's, with the newest checkpoint and what to try added.
            Interrupted: The block's, once it was said what is saved.
        """
        try:
            with self._signals.caught():
                self._signals.note_only()
                with self._told():
                    yield
        except Diverged as error:
            raise self.diverged(error) from None
        except Exception as error:
            # Actions of NaN, for example, which an environment or a distribution refuses.
            if (behind := divergence_behind(error, self._session)) is not None:
                raise self.diverged(behind) from error
            self.failed(error)
            if self._directory.started and not isinstance(error, NotSaved):
                self._failed(error)
            raise
        except Interrupted as error:
            self.end("interrupted", reason=str(error))
            self._say_interrupted(error)
            raise
        except BaseException as error:  # A second SIGINT, or SystemExit from the user's code.
            self.end("interrupted", reason=type(error).__name__)
            mark_resumable(error, self.resumable)
            raise

    def failed(self, error: BaseException) -> None:
        """End the run as failed by an error, or interrupted by what is more than an error."""
        if isinstance(error, Exception):
            self.end("failed", reason=f"{type(error).__name__}: {error}".rstrip(": "))
        else:
            self.end("interrupted", reason=str(error) or type(error).__name__)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Runs the block; what ends it, the other ranks of the run learn before more is made of it."""
        try:
            yield
        except BaseException as error:
            ranks().tell(error)
            raise

    def _failed(self, error: Exception) -> None:
        """Keep what the error of a run that had begun left behind, and add to the error where it is."""
        if isinstance(error, ConfigError):
            error.exit_code = 1  # Nothing was refused: an environment died, say.
        if isinstance(error, CheckpointError):  # This state cannot be saved.
            return
        kept = self._saving.save_crash()
        if isinstance(error, ConfigError):
            error.args = (f"{error}\n{kept}",)  # The console prints its message alone.
        else:
            error.add_note(kept)

    def diverged(self, error: Diverged) -> Diverged:
        """End the run as diverged; returns the error with the step, and what to do, added."""
        self.end("diverged", reason=str(error), tensor=error.tensor, lr=error.lr)
        return with_advice(error, self._saving.last_good(), step=self._session.progress.step)

    def _say_interrupted(self, error: Interrupted) -> None:
        session = self._session
        session.console.stop()
        if not self._directory.started:
            session.console.note(f"Interrupted by {error} before its first step.")
            return
        outcome = f"saved to {session.path}" if error.saved else "not saved"
        session.console.note(f"Interrupted by {error} at step {session.progress.step}; {outcome}.")

    def wait(self) -> None:
        """Pause a resumed run in the middle of a task whose data has not arrived yet."""
        session = self._session
        number = session.progress.task
        reason = (
            f"Task {number}, {session.report.world.tasks[number].name}, is only partly learnt. Call "
            "run.learn_task with the same data and name to continue it."
        )
        self.end("interrupted", reason=reason)
        self.status = "waiting"
        session.console.note(reason)


def draw_plots(
    session: Supervised,
    history: History,
    tasks: list[dict[str, Any]],
    *,
    between: Callable[[], None],
) -> None:
    """Draw the plots of a run at its end.

    Args:
        history: Its rows.
        tasks: The cost of each task.
        between: Called after each kind of plot, and may raise to leave out the rest.
    """
    report, problem = session.report, session.console.problem
    parameters = tasks[-1].get("parameters") if tasks else None
    draw = Spared(report.draw_run, "No pictures of the run", problem)
    draw(history.condensed(), session.progress, parameters=parameters)
    between()
    Spared(report.draw_predictions, "No pictures of the predictions", problem)()
    between()

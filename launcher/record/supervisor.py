"""Supervises a run: its directory, checkpoints, journal, console, signals and final status."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ...replay import CheckpointError, ConfigError, Diverged, NotSaved
from ...replay.randomness import kept_randomness
from ...replay.shown import shown
from ..settings.plan import Plan
from .csv_file import CSV, Row
from .directory import RunDirectory
from .divergence import Rollback, divergence_behind, with_advice
from .log import Journal, Writer
from .output import write_error
from .read_back import ReadBack
from .saving import Saving
from .signals import Interrupted, Left, Signals, mark_resumable
from .spared import Spared
from .supervised import Supervised
from .trackers import Tracker, missing
from .validation import check_structure, loading

_SHOW_SECONDS = 0.2


class Supervisor:
    """Does what happens around the steps of a run: saves, writes rows, shows progress, stops on signals.

    Use as a context manager, or call `close`: it holds the run directory and open files.

    Args:
        plan: Says how often to save, where rows go, and whether to resume.
        session: The run to supervise.
        signals: Those that ask the run to stop; None: caught only while it learns.

    Attributes:
        status: "open", "waiting" for the data of a later task, or the final status, as in `status.json`.
        journal: The rows of train.csv and eval.csv.
        tasks: Cost of each task, including tasks finished before a resume: `steps`, `seconds` (since the
            run was last resumed), and what `Report.costs` returns.
        closed: Whether the directory is released.
        stopped_by: The callback that has ended the run, as `Mine.on_step`; None: none has.

    Raises:
        ConfigError: If the directory cannot be written, or another run is writing there.
    """

    def __init__(self, plan: Plan, session: Supervised, signals: Signals | None = None):
        self.plan, self.session, self.status = plan, session, "open"
        self._signals = Signals() if signals is None else signals
        self.progress, self.console = session.progress, session.console
        with ExitStack() as opened:
            self.directory = RunDirectory(session.path, resume=bool(plan.resume))
            opened.callback(self.directory.close)
            self.journal = _journal(plan, session, self._signals)
            opened.callback(self.journal.close)
            opened.callback(self.console.stop)
            self.console.header(session.report.header())
            for problem in session.report.problems():
                self.console.problem(problem)
            self._opened = opened.pop_all()
        self.saving = Saving(plan, session, self.journal)
        self.checkpoints = self.saving.checkpoints
        self._rollback: Rollback | None = None
        if plan.on_nan == "rollback":
            self._rollback = Rollback(session, self.checkpoints, self.console.problem)
        self._save_first = False
        self._config = Spared(
            self.directory.write_config, "config.yaml could not be written", self.console.problem
        )
        self._status = Spared(
            self.directory.status, "status.json could not be written", write_error
        )
        self.tasks: list[dict[str, Any]] = []
        self.closed = False
        self.stopped_by: str | None = None
        self._described = False  # Whether config.yaml says what this process uses.
        self._claimed: tuple[str, int] | None = None  # Our newest checkpoint at `close`.
        self._shown = 0.0
        self._saved_place: tuple[object, ...] | None = None  # `_place` when the newest was written.
        self._task_began, self._seconds = time.monotonic(), 0.0

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def resume(self) -> None:
        """Continue from the newest valid checkpoint, if the plan asks for it and there is one.

        Raises:
            CheckpointError, ConfigError: If it belongs to another model, sequence, data or settings, or if
                none is valid.
        """
        state = self._newest_state() if self.directory.resume else None
        if state is None:
            self.directory.resume = False
            self.session.check_fresh()
            return
        with loading(self.checkpoints.folder):
            check_structure(state)
            rows = self._read_back(state)
            self.session.load_state_dict(state)
            self.journal.expect(self.session.num_tasks)
            self.journal.load_state_dict({**state["journal"], **(rows.mend() if rows else {})})
        self.tasks = self.directory.earlier_tasks()[: self.progress.task]
        self.saving.resumed()

    def _newest_state(self) -> dict[str, Any] | None:
        state, problems = self.checkpoints.newest()
        if state is None and problems and self.plan.resume != "force":
            found = "\n".join(f"  {problem}" for problem in problems)
            error = CheckpointError(
                f"No checkpoint of the run in {self.session.path} can be read:\n{found}\nTo start over, with "
                "that run moved aside: resume=force. To continue it, restore one of them."
            )
            error.exit_code = 1  # What was asked for is right; the run is damaged.
            raise error
        for problem in problems:
            self.console.problem(f"Skipped: {problem}")
        if state is None:
            none = "No readable checkpoint in" if problems else "No checkpoint to resume from in"
            yet = "" if problems else " yet"
            self.console.note(f"{none} {self.session.path}{yet}: starting from scratch.")
        return state

    def _read_back(self, state: dict[str, Any]) -> ReadBack | None:
        """Compare the CSV files with a checkpoint; None: the run wrote none, or writes none now.

        Raises:
            CheckpointError: If they have lost rows, unless `override` says to go on without those.
        """
        if "csv" not in self.plan.loggers or "csv" not in state["settings"].get("loggers", ()):
            return None
        rows = ReadBack(self.session.path, state["journal"], state["progress"]["step"])
        if not rows.problems:
            return rows
        found = "; ".join(rows.problems)
        if "csv" not in (self.plan.override or ()):
            raise CheckpointError(
                f"The rows in {self.session.path} are not those that its checkpoint at step "
                f"{state['progress']['step']:,} continues: {found}. Restore the file, or add override=[csv] "
                "to continue with the rows that are there."
            )
        self.console.problem(f"Continued without the rows that are lost: {found}.")
        return rows

    # ------------------------------------------------------------------------- while it learns

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Runs the block with signals noted for `check`; any error becomes the run's final status.

        Raises:
            Diverged: The block's, with the newest checkpoint and what to try added.
            Interrupted: After a signal, once the run is saved.
        """
        # Time that the caller spent before does not count.
        began = self._task_began = time.monotonic()
        with self._recording_its_end():
            try:
                yield
                self.start()
            except Left:  # In an evaluation, which the state that is saved now owes.
                pass
            self._stop_if_asked()
        self._seconds += time.monotonic() - began
        self.console.stop()

    @contextmanager
    def _recording_its_end(self) -> Iterator[None]:
        """Runs the block with signals noted; whatever ends it becomes the run's final status."""
        try:
            with self._signals.caught():
                self._signals.note_only()
                yield
        except Diverged as error:
            raise self._diverged(error) from None
        except Exception as error:
            # Actions of NaN, for example, which an environment or a distribution refuses.
            if (behind := divergence_behind(error, self.session)) is not None:
                raise self._diverged(behind) from error
            if self.directory.started and not isinstance(error, (ConfigError, NotSaved)):
                error.add_note(self.saving.save_crash())
            if self.directory.started and isinstance(error, ConfigError):
                error.exit_code = (
                    1  # It had begun, so it was not refused: an environment died, say.
                )
            self._end("failed", reason=f"{type(error).__name__}: {error}")
            raise
        except Interrupted as error:
            self._end("interrupted", reason=str(error))
            self.console.stop()
            outcome = f"saved to {self.session.path}" if error.saved else "not saved"
            self.console.note(f"Interrupted by {error} at step {self.progress.step}; {outcome}.")
            raise
        except BaseException as error:  # A second SIGINT, or SystemExit from the user's code.
            self._end("interrupted", reason=type(error).__name__)
            mark_resumable(error, self._resumable)
            raise

    def _diverged(self, error: Diverged) -> Diverged:
        """End the run as diverged; returns the error with the step, and what to do, added."""
        self._end("diverged", reason=str(error), tensor=error.tensor, lr=error.lr)
        return with_advice(error, self.saving.last_good(), step=self.progress.step)

    def start(self) -> None:
        """Write the first files, after the first step: a run that fails before leaves no traces."""
        if self.directory.started:
            return
        aside = self.directory.start()
        # A resumed run that has nothing left to learn leaves the settings as they were used.
        if not self.directory.resume:
            self._describe()
        if aside is not None:
            self.console.note(f"The earlier run in {self.directory.path} was moved to {aside}.")
        self._write_status("running")
        if self.plan.render_model:
            draw = self.session.report.draw_model
            Spared(draw, "No picture of the model", self.console.problem)(self.console)

    def stepped(self) -> None:
        """Call after each step, before its rows are written."""
        if not self.directory.started:
            self.start()
        if not self._described:
            self._describe()
        now = time.monotonic()
        if now - self._shown > _SHOW_SECONDS:
            self._shown = now
            self.console.update(self.progress, self.session.newest_loss())

    def begin_task(self) -> None:
        """Call when a task begins, or is resumed."""
        # To go back to: a checkpoint of an earlier task may lack what has grown since.
        self._save_first = self._rollback is not None

    def recover(self, error: Exception) -> bool:
        """Call after an error in a step: goes back to the last good checkpoint, if the run diverged.

        Returns:
            Whether it did.

        Raises:
            Diverged: If the run has gone back too often.
        """
        if self._rollback is None or not self.directory.started:
            return False
        if isinstance(error, Diverged):
            diverged: Diverged | None = error
        else:
            diverged = divergence_behind(error, self.session)
        if diverged is None:
            return False
        self._rollback(diverged)
        return True

    def _describe(self) -> None:
        """Write config.yaml."""
        self._described = True  # If it cannot be written, the next checkpoint tries again.
        self._config(self.session.config_text())

    def check(self) -> None:
        """Call between two steps: saves if a checkpoint is due, and stops if a signal came.

        Raises:
            Interrupted: After a signal, once the run is saved.
            NotSaved: After `save_patience` checkpoints that could not be written.
        """
        self._stop_if_asked()
        if not self.directory.started:
            return  # Nothing is learnt yet, so nothing is lost.
        if self.saving.due() or self._save_first:
            self._save_first = False
            self.save()
            self.saving.check()
            self._stop_if_asked()  # A signal came meanwhile.

    def _stop_if_asked(self) -> None:
        """Save the run as it is and raise `Interrupted`, if a signal came."""
        if self._signals.arrived() is None:
            return
        saved = False
        if self.directory.started:
            # Saving the same state again would push out an older checkpoint. A run that a callback has
            # stopped was saved before its last rows, which a resumed run writes again.
            kept = self._saved_place == self._place or self.stopped_by is not None
            saved = kept or self.save()
        raise self._signals.interrupted(saved=saved, resumable=self._resumable)

    @property
    def _place(self) -> tuple[object, ...]:
        at = self.progress
        return at.step, at.task, at.begun, at.stopped, at.owes

    @property
    def _resumable(self) -> bool:
        """Whether `resume=true` finds a checkpoint of this run."""
        ours = self.directory.started or self.directory.resume
        return ours and bool(self.checkpoints.numbered())

    def write(self, mode: str, row: Row) -> None:
        """Write a row, unless it is empty.

        Args:
            mode: "train" or "eval".
            row: Values by column, with `step`, `epoch` and `task`.

        Raises:
            NotSaved: If the run directory was removed.
        """
        if row:
            self.directory.check()
            self.journal.write(mode, **row)

    def evaluated(self, row: Row) -> None:
        """Write and show the row of an evaluation in mid-task, unless it is empty."""
        if row:
            self.write("eval", row)
            self.console.evaluated(self.progress)

    def task_ended(self, task: int) -> None:
        """Call after a task: counts it, and shows what it took.

        Args:
            task: Number of the task, from 0.
        """
        self.start()
        took: dict[str, Any] = {
            "steps": self.progress.task_step,
            "seconds": time.monotonic() - self._task_began,
            **self.session.report.costs(task),
        }
        self.tasks.append(took)
        self.console.task_ended(self.progress, took)

    def save_task(self) -> None:
        """Call after `task_ended`: saves, unless tasks are too short for the time that saving takes.

        Raises:
            Interrupted: If a signal came since the task's last step, once the run is saved.
            NotSaved: After `save_patience` checkpoints that could not be written.
        """
        # After a signal, `check` saves: twice the same would push out an older checkpoint.
        if self.saving.due_after_task() and self._signals.arrived() is None:
            self.save(at_end=self.session.finished)
            self.saving.check()
        self._task_began = time.monotonic()
        self.check()

    def save(self, *, at_end: bool = False) -> bool:
        """Write a checkpoint, after the rows up to it.

        Args:
            at_end: Whether to try again, up to `save_patience` times: there is no later one.

        Returns:
            False if the system refused.

        Raises:
            Diverged: If a weight, or what trains it, is NaN or infinite; nothing is written then.
            NotSaved: If the run directory was removed.
        """
        self.directory.check()
        if self._config.in_a_row or not (self.directory.path / "config.yaml").exists():
            self._describe()
        saved = (
            self.saving.save_at_end(lambda: self._signals.arrived() is not None)
            if at_end
            else self.saving.save()
        )
        if saved:
            self._saved_place = self._place
            self._write_status("running")
        return saved

    def stop(self, who: str) -> None:
        """Save the run as it is, to be ended in good order because a callback wished it.

        Args:
            who: The callback.

        Raises:
            NotSaved: After `save_patience` checkpoints that could not be written.
        """
        self.start()
        self.stopped_by = who
        if self.progress.step > self.saving.step or not self.checkpoints.numbered():
            self.save(at_end=True)
            self.saving.check()

    # ------------------------------------------------------------------------------ at its end

    def finish(self) -> None:
        """Report the end of a run whose tasks are all learnt, or that was stopped, and draw its plots."""
        progress, console, session = self.progress, self.console, self.session
        if not session.finished and self.stopped_by is None:
            self._wait()
            return
        steps = progress.step - session.first_step
        # Later tasks must see the random streams as if nothing was drawn.
        with kept_randomness(), self._recording_its_end():
            for problem in session.report.last_words(stepped=steps > 0):
                console.problem(problem)
            if self._rollback is not None and (count := self._rollback.count):
                console.problem(f"on_nan=rollback went back {count} time{'s' * (count > 1)}.")
            self._draw()
            self.journal.close()  # A tracker may take minutes, or be interrupted.
            self._stop_if_asked()
            if self.stopped_by is None:
                self._end("finished")
            else:
                self._end("stopped", reason=self.stopped_by)
                at = f"step {progress.step:,}; resume=true continues the run"
                console.note(f"Stopped by {self.stopped_by} at {at}.")
            console.finished(progress, session.path, seconds=self._seconds, steps=steps)

    def _draw(self) -> None:
        """Draw the plots of a run at its end, unless a signal comes."""
        report, problem = self.session.report, self.console.problem
        self._stop_if_asked()
        if self.plan.plot:
            draw = Spared(report.draw_run, "No pictures of the run", problem)
            parameters = self.tasks[-1].get("parameters") if self.tasks else None
            draw(self.journal.history.condensed(), self.progress, parameters=parameters)
            self._stop_if_asked()
            Spared(report.draw_predictions, "No pictures of the predictions", problem)()
            self._stop_if_asked()

    def _wait(self) -> None:
        """Pause a resumed run in the middle of a task whose data has not arrived yet."""
        task = self.session.report.world.tasks[self.progress.task].name
        reason = (
            f"Task {self.progress.task}, {task}, is only partly learnt. Call run.learn_task with the same "
            "data and name to continue it."
        )
        self._end("interrupted", reason=reason)
        self.status = "waiting"
        self.console.note(reason)

    def fail(self, reason: str) -> None:
        """Mark the run as failed.

        Args:
            reason: Goes into `status.json`.
        """
        self._end("failed", reason=reason)

    def close(self, reason: str = "", *, save: bool = True) -> None:
        """Release the directory, files and console. An unfinished run is marked interrupted.

        Args:
            reason: What interrupted it, for `status.json`.
            save: Whether to save what was learnt since the last checkpoint, if anything was.
        """
        if self.closed:
            return
        self.closed = True
        behind = self.directory.started and self.progress.step > self.saving.step
        if self.status == "open" and save and behind:
            try:
                self.save()
            except Diverged as error:  # Nobody is there to catch it.
                self.console.problem(str(self._diverged(error)))
            except NotSaved as error:
                self.console.problem(str(error))
                self._end("failed", reason=str(error))
        if self.status == "open":
            self._end("interrupted", reason=reason)
        self._opened.close()
        self._claimed = self._newest()

    @contextmanager
    def reclaiming(self) -> Iterator[None]:
        """Claim the directory again for another task; releases it if the block raises.

        Raises:
            ConfigError: If another run has replaced this one, or is writing there.
        """
        if self._claimed != self._newest():
            raise ConfigError(
                f"{self.session.path} no longer holds this run: another run replaced it. Use a separate "
                "path= for a run that you want to continue."
            )
        self.directory.reopen()
        try:
            yield
        except BaseException:
            self.directory.close()
            raise

    def reopen(self, *, more_steps: int) -> None:
        """Continue a finished run, in a directory that `reclaiming` has claimed.

        Args:
            more_steps: Steps of the added task, by which the progress bar grows.
        """
        self.status, self.closed, self._seconds = "open", False, 0.0
        self._opened.callback(self.directory.close)
        self._opened.callback(self.journal.close)
        self._opened.callback(self.console.stop)
        if self.console.total is not None:
            self.console.total += more_steps

    def _newest(self) -> tuple[str, int] | None:
        """Name and time (ns) of the newest checkpoint, which tell it from another run's at the same path."""
        kept = self.checkpoints.numbered()
        return (kept[0].name, (kept[0] / "manifest.json").stat().st_mtime_ns) if kept else None

    def _end(self, status: str, **details: Any) -> None:
        """Write the final status, unless the run has left no traces yet."""
        self.status = status
        if self.directory.started:
            if self.directory.lost:  # Another run may be in its place.
                write_error(f"status.json could not be written: {self.directory.path} is gone.")
            else:
                self._write_status(status, **details)

    def _write_status(self, status: str, **details: Any) -> None:
        progress = self.progress
        self._status(
            status=status,
            step=progress.step,
            task=progress.task,
            metrics=progress.metrics,
            tasks=self.tasks,
            # The reason may quote an error's message, and that a secret.
            **{k: shown(v) if isinstance(v, str) else v for k, v in details.items()},
        )


def _journal(plan: Plan, session: Supervised, signals: Signals) -> Journal:
    """A journal with the writers that `loggers=` names; each opens its file at its first row."""
    path, tasks = session.path, session.num_tasks
    lacking = missing(plan.loggers)
    writers: list[Writer] = []
    for name in plan.loggers:
        if name == "csv":
            writers += [CSV(path / f"{m}.csv", mode=m, tasks=tasks) for m in ("train", "eval")]
        elif name not in lacking:
            writers.append(
                Tracker(
                    name, path, dict(plan.values), interrupted=lambda: signals.arrived() is not None
                )
            )
    return Journal(writers, session.console.problem)

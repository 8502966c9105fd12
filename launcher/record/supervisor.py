"""Supervises a run: its directory, checkpoints, journal, console, signals and final status."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ...replay import ConfigError, Diverged, NotSaved
from ...replay.randomness import kept_randomness
from ...replay.ranks import Ranks, ranks
from ..settings.plan import Plan
from .csv_file import Row
from .directory import RunDirectory
from .divergence import Rollback
from .ending import Ending, draw_plots
from .other_ranks import ReadOnlyDirectory
from .read_back import newest_state, rows_to_continue
from .saving import Saving
from .signals import Left, Signals
from .spared import Spared
from .supervised import Supervised
from .trackers import build_journal
from .validation import check_structure, loading

_SHOW_SECONDS = 0.2
_ALIVE_SECONDS = 5.0  # Between two that status.json is brought up to date, for those who watch.
_SCORED_SECONDS = 1.0  # The same after an evaluation.


class Supervisor:
    """Does what happens around the steps of a run: saves, writes rows, shows progress, stops on signals.

    Use as a context manager, or call `close`: it holds the run directory and open files.

    Args:
        plan: Says how often to save, where rows go, and whether to resume.
        session: The run to supervise.
        signals: Those that ask the run to stop; None: caught only while it learns.

    Attributes:
        ending: How the run stands, or has ended.
        journal: The rows of train.csv and eval.csv.
        tasks: Cost of each task, including tasks finished before a resume: `steps`, `seconds` (since the
            run was last resumed), and what `Report.costs` returns.
        closed: Whether the directory is released.
        stopped_by: The callback that has ended the run, as `Mine.on_step`; None: none has.

    Raises:
        ConfigError: If the directory cannot be written, or another run is writing there.
    """

    def __init__(self, plan: Plan, session: Supervised, signals: Signals | None = None):
        self.plan, self.session = plan, session
        self._signals = Signals() if signals is None else signals
        self.progress, self.console = session.progress, session.console
        with ExitStack() as opened:
            writes = ranks().rank == 0
            kind = RunDirectory if writes else ReadOnlyDirectory
            self.directory = kind(session.path, resume=bool(plan.resume))
            opened.callback(self.directory.close)
            self.journal = build_journal(plan, session, self._signals)
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
        self.tasks: list[dict[str, Any]] = []
        self.ending = Ending(session, self.directory, self.saving, self._signals, self.tasks)
        self.closed = False
        self.stopped_by: str | None = None
        self._evaluated = False  # Whether this process has evaluated the run in mid-task.
        self._described = False  # Whether config.yaml says what this process uses.
        self._claimed: tuple[str, int] | None = None  # Our newest checkpoint at `close`.
        self._shown = 0.0
        self._saved_place: tuple[object, ...] | None = None  # `_place` when the newest was written.
        self._task_began, self._seconds = time.monotonic(), 0.0

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        # Most errors have been recorded by now: not those of the user's module as it is put to rest, say.
        if error is not None and self.status == "open":
            self.ending.failed(error)
        self.close()

    @property
    def status(self) -> str:
        """ "open", "waiting" for the data of a later task, or the final status, as in `status.json`."""
        return self.ending.status

    def resume(self) -> None:
        """Continue from the newest valid checkpoint, if the plan asks for it and there is one.

        Raises:
            CheckpointError, ConfigError: If it belongs to another model, sequence, data or settings, or if
                none is valid.
        """
        state = None
        if self.directory.resume:
            state = newest_state(
                self.checkpoints, self.session.path, self.console, force=self.plan.resume == "force"
            )
        if state is None:
            self.directory.resume = False
            self.session.check_fresh()
            return
        with loading(self.checkpoints.folder):
            check_structure(state)
            rows = None
            if ranks().rank == 0:
                rows = rows_to_continue(self.plan, self.session.path, self.console, state)
            self.session.load_state_dict(state)
            self.journal.expect(self.session.num_tasks)
            self.journal.load_state_dict({**state["journal"], **(rows.mend() if rows else {})})
        self.tasks += self.directory.earlier_tasks()[: self.progress.task]
        self.saving.resumed()

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
        with self.ending.recorded():
            try:
                yield
                self.start()
            except Left:  # In an evaluation, which the state that is saved now owes.
                pass
            self._stop_if_asked()
        self._seconds += time.monotonic() - began
        self.console.stop()

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
        self.ending.running()
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
            self.ending.goes_on(after=_ALIVE_SECONDS)

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
        ranks().tell(error)  # All ranks go back, or none.
        return self._rollback.recover(error)

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
        started = self.directory.started
        due = started and (self._save_first or self.saving.due())
        if (place := ranks()).several:
            due = self._agreed(place, due)
        self._stop_if_asked()
        if not started:
            return  # Nothing is learnt yet, so nothing is lost.
        if due:
            self._save_first = False
            self.save()
            self.saving.check()
            self._stop_if_asked()  # A signal came meanwhile.

    def _agreed(self, place: Ranks, due: bool) -> bool:
        """Whether rank 0 saves; a signal that any rank has received stops all of them from here on."""
        at, mine = self.progress, place.rank == 0 and due
        signum, saves = place.agree(
            f"step {at.step} of task {at.task}", self._signals.noted() or 0, mine
        )
        self._signals.agree(signum)
        return bool(saves)

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
        raise self._signals.interrupted(saved=saved, resumable=self.ending.resumable)

    @property
    def _place(self) -> tuple[object, ...]:
        at = self.progress
        return at.step, at.task, at.begun, at.stopped, at.owes

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
            self.ending.goes_on(after=_SCORED_SECONDS)
        if not self._evaluated:  # At a long run's end, it would be said hours too late.
            self._evaluated = True
            for problem in self.session.report.untrained(so_far=True):
                self.console.problem(problem)

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
        due = ranks().decided("end of a task", self.saving.due_after_task())
        if due and self._signals.arrived() is None:
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
            NotSaved: If the run directory was removed, or another process has begun to write there.
        """
        self.directory.check()
        self.directory.check_owner()
        if self._config.in_a_row or not (self.directory.path / "config.yaml").exists():
            self._describe()
        saved = (
            self.saving.save_at_end(lambda: self._signals.arrived() is not None)
            if at_end
            else self.saving.save()
        )
        if saved:
            self._saved_place = self._place
            self.ending.running()
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
        due = self.progress.step > self.saving.step or not self.checkpoints.numbered()
        if ranks().decided("stop", due):
            self.save(at_end=True)
            self.saving.check()

    # ------------------------------------------------------------------------------ at its end

    def finish(self) -> None:
        """Report the end of a run whose tasks are all learnt, or that was stopped, and draw its plots."""
        progress, console, session = self.progress, self.console, self.session
        if not session.finished and self.stopped_by is None:
            self.ending.wait()
            return
        steps = progress.step - session.first_step
        # Later tasks must see the random streams as if nothing was drawn.
        with kept_randomness(), self.ending.recorded():
            for problem in session.report.last_words(stepped=steps > 0):
                console.problem(problem)
            if count := progress.rollbacks:
                console.problem(f"on_nan=rollback went back {count} time{'s' * (count > 1)}.")
            self._stop_if_asked()
            if self.plan.plot:
                draw_plots(session, self.journal.history, self.tasks, between=self._stop_if_asked)
            self.journal.close()  # A tracker may take minutes, or be interrupted.
            self._stop_if_asked()
            if self.stopped_by is None:
                self.ending.end("finished")
            else:
                self.ending.end("stopped", reason=self.stopped_by)
                at = f"step {progress.step:,}; resume=true continues the run"
                console.note(f"Stopped by {self.stopped_by} at {at}.")
            console.finished(progress, session.path, seconds=self._seconds, steps=steps)

    def fail(self, reason: str) -> None:
        """Mark the run as failed.

        Args:
            reason: Goes into `status.json`.
        """
        self.ending.end("failed", reason=reason)

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
                self.console.problem(str(self.ending.diverged(error)))
            except NotSaved as error:
                self.console.problem(str(error))
                self.ending.end("failed", reason=str(error))
        if self.status == "open":
            self.ending.end("interrupted", reason=reason)
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
        self.ending.status, self.closed, self._seconds = "open", False, 0.0
        self._opened.callback(self.directory.close)
        self._opened.callback(self.journal.close)
        self._opened.callback(self.console.stop)
        if self.console.total is not None:
            self.console.total += more_steps

    def _newest(self) -> tuple[str, int] | None:
        """Name and time (ns) of the newest checkpoint, which tell it from another run's at the same path."""
        kept = self.checkpoints.numbered()
        return (kept[0].name, (kept[0] / "manifest.json").stat().st_mtime_ns) if kept else None

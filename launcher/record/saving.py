"""When a run is saved, and what happens when it cannot be."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from ...replay import CheckpointError, NotSaved
from ...replay.ranks import ranks
from ..settings.plan import Plan
from .checkpoint import Checkpoints
from .log import Journal
from .spared import Spared, reason
from .supervised import Supervised

_SAVE_SECONDS = 60.0  # Between checkpoints when save_every is not given.
_SAVING_SHARE = 0.05  # Of a run's time, at most: a large replay takes long to write.
_AGAIN_SECONDS = 1.0  # Between two tries to save a run that has ended.


class Saving:
    """Writes the checkpoints of a run, each after the rows up to it.

    A checkpoint that cannot be written (the disk is full) leaves the earlier ones as they are, and the run
    goes on; `save_patience` of them in a row end it.

    Args:
        plan: Says how often to save, and how many failures to bear.
        session: The run.
        journal: Its rows.

    Attributes:
        checkpoints: Those of the run directory.
        step: The step of the newest checkpoint.
    """

    def __init__(self, plan: Plan, session: Supervised, journal: Journal):
        self.checkpoints, self.step = Checkpoints(session.path / "checkpoints"), 0
        self._every, self._patience = plan.save_every, plan.save_patience
        self._session, self._journal = session, journal
        # Functions, not methods: a reference cycle would keep the memory of a dropped run.
        report = partial(_report, session, self.checkpoints)
        # A state that no checkpoint can hold is not the disk's, and will not be solved by waiting.
        self._write = Spared(
            _save, "A checkpoint could not be written", report, but=(CheckpointError,)
        )
        self._tried_at, self._tried_step = time.monotonic(), 0
        self._pause, self._took = _SAVE_SECONDS, 0.0  # Seconds.
        self._weights_alone = False  # Whether the newest checkpoint lacks its replay.

    def resumed(self) -> None:
        """Count from here: the run continues from its newest checkpoint."""
        self._tried_at = time.monotonic()
        self.step = self._tried_step = self._session.progress.step

    def due(self) -> bool:
        """Whether a checkpoint is due between two steps."""
        if self._every is None:
            return time.monotonic() - self._tried_at > self._pause
        return self._session.progress.step - self._tried_step >= self._every

    def due_after_task(self) -> bool:
        """Whether one is due after a task: not where tasks are too short for the time that saving takes."""
        since = time.monotonic() - self._tried_at
        return self._session.finished or since >= self._took / _SAVING_SHARE

    def save(self) -> bool:
        """Write a checkpoint.

        Returns:
            False if the system refused, and it was said why.

        Raises:
            Diverged: If a weight, or what trains it, is NaN or infinite; nothing is written then.
            CheckpointError: If something holds what no checkpoint can.
        """
        self._tried_at, self._tried_step = time.monotonic(), self._session.progress.step
        # Until it is written: the state refers to the weights, which averaged ones replace at rest.
        with self._session.awake():
            self._session.check_finite(closely=True)
            began = time.monotonic()
            saved = self._write(self._session, self._journal, self.checkpoints)
        self._tried_at = time.monotonic()
        self._took = self._tried_at - began
        self._pause = max(_SAVE_SECONDS, self._took / _SAVING_SHARE)
        if saved:
            self.step = self._tried_step
            self._say_what_is_left_out()
        return saved

    def save_at_end(self, interrupted: Callable[[], bool]) -> bool:
        """Write the last checkpoint of a run: until it succeeds, or no patience is left.

        Args:
            interrupted: Whether a signal asks the run to stop at once.
        """
        while not (saved := self.save()) and 0 < self._write.in_a_row < self._patience:
            if interrupted():
                break
            time.sleep(_AGAIN_SECONDS)
        return saved

    def check(self) -> None:
        """Raise NotSaved if the last `save_patience` checkpoints could not be written."""
        if self._write.in_a_row >= self._patience:
            raise NotSaved(
                f"No checkpoint could be written in {self._write.in_a_row} tries in a row "
                f"({self._write.reason}). {self.last_good()} Free some space, or set another path; "
                "save_patience= is the number of tries."
            )

    def save_crash(self) -> str:
        """Keep what an error left behind, beside the checkpoints to resume from; says where, in a sentence.

        The step of the error may be half done: a run that continued from there would differ.
        """
        session = self._session
        if ranks().rank:
            return "Rank 0 keeps the state at the error."
        try:
            with session.awake():
                session.check_finite(closely=True)
                state = {**session.state_dict(), "journal": self._journal.state_dict()}
                path = self.checkpoints.save_crash(state, model=session.model_state())
        except (
            Exception
        ) as error:  # The disk's, or of an object that the first error left in pieces.
            kept = f"The state at the error could not be saved ({reason(error)})."
        else:
            kept = f"The state at the error is in {path}, for load=."
        if not self.checkpoints.numbered():
            return kept
        return f"{kept} {self.last_good()} resume=true continues from there."

    def _say_what_is_left_out(self) -> None:
        problem, said = self.checkpoints.problem, self._weights_alone
        self._weights_alone = problem is not None
        if problem is not None and not said:
            self._session.console.problem(
                f"Step {self.step}: the checkpoint holds the weights without the replay, which could not be "
                f"written ({problem}). load= starts from it; resume=true from the last whole one."
            )

    def last_good(self) -> str:
        """Where the newest checkpoint is, as a sentence."""
        return _last_good(self.checkpoints)


def _save(session: Supervised, journal: Journal, checkpoints: Checkpoints) -> None:
    place, problem = ranks(), None
    if place.several:
        session.pool()
    try:
        if place.rank == 0 or place.own:  # In environments each rank has a part of its own.
            _save_alone(session, journal, checkpoints)
    except OSError as error:
        problem = error
    if place.any("checkpoint", problem is not None):
        raise problem or OSError("rank 0 could not write it")


def _save_alone(session: Supervised, journal: Journal, checkpoints: Checkpoints) -> None:
    journal.sync()
    state = {**session.state_dict(), "journal": journal.state_dict()}
    checkpoints.save(state, model=session.model_state())


def _report(session: Supervised, checkpoints: Checkpoints, text: str) -> None:
    at = session.progress.step
    session.console.problem(f"Step {at}: {text}. {_last_good(checkpoints)} The run goes on.")


def _last_good(checkpoints: Checkpoints) -> str:
    kept = checkpoints.numbered()
    return f"The last good checkpoint is {kept[0]}." if kept else "There is no checkpoint yet."

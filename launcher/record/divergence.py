"""What happens to a run that diverged: it ends, or goes back to its last good checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...replay import CheckpointError, Diverged
from .checkpoint import Checkpoints
from .spared import reason
from .supervised import Supervised


def with_advice(error: Diverged, last_good: str, *, step: int) -> Diverged:
    """The error with the run's step, its last good checkpoint and what to try.

    Args:
        last_good: Where that checkpoint is, as a sentence.
        step: The run's step, as in train.csv.
    """
    advised = _with_text(error, f"{error} {last_good} Try a smaller lr, or clip_grad=1.")
    advised.step = step if error.step is None else error.step
    return advised


def divergence_behind(error: Exception, session: Supervised) -> Diverged | None:
    """What is not finite in the model of a run that has failed; None if it is not to blame.

    Actions of NaN, for example, are refused by an environment or by a distribution.
    """
    try:
        session.check_finite()
    except Diverged as found:
        return _with_text(found, f"{found} It then raised {reason(error).rstrip('.')}.")
    except Exception:  # After some errors a GPU no longer responds.
        return None
    return None


class Rollback:
    """`on_nan=rollback`: goes back to the weights of the last good checkpoint, and on with the data after.

    What learns goes back: weights, buffers, averages, optimisers, strategies, an environment's statistics.
    Steps, the learning rate's schedule, random streams, the replay and episodes go on.

    Args:
        session: The run.
        checkpoints: Its checkpoints, which are all finite.
        report: Shows a line to the user; called for the first time only.
    """

    MOST = 10  # In a run.
    MOST_TO_ONE = 3  # To the same checkpoint.

    def __init__(
        self, session: Supervised, checkpoints: Checkpoints, report: Callable[[str], None]
    ):
        self._session, self._checkpoints, self._report = session, checkpoints, report
        self._to, self._last = 0, Path()  # How often, and to which.

    def recover(self, error: Exception) -> bool:
        """Go back after an error in a step, if the run diverged; returns whether it did.

        Raises:
            Diverged: That of the step, with the reason, if it has gone back too often or cannot.
        """
        found = error if isinstance(error, Diverged) else divergence_behind(error, self._session)
        if found is None:
            return False
        self._go_back(found)
        return True

    def _go_back(self, error: Diverged) -> None:
        kept, progress = self._checkpoints.numbered(), self._session.progress
        if not kept:
            raise error
        self._to = self._to + 1 if kept[0] == self._last else 1
        self._last = kept[0]
        times = ""
        if progress.rollbacks >= self.MOST:
            times = f"{progress.rollbacks} times"
        elif self._to > self.MOST_TO_ONE:
            times = f"{self._to - 1} times to {kept[0]}"
        if times:
            again = f"on_nan=rollback went back {times}, and the run diverged again."
            raise _with_text(error, f"{error} {again}")
        state, _ = self._checkpoints.newest(without=("replay",))
        if state is None:
            raise error
        at = state["progress"]["step"]
        try:
            self._session.roll_back(state)
            self._session.check_finite(closely=True)
        except (CheckpointError, Diverged) as second:
            raise _with_text(error, f"{error} on_nan=rollback cannot go back: {second}") from second
        progress.rollbacks += 1
        if progress.rollbacks == 1:
            self._report(
                f"{error} on_nan=rollback: back to the weights of step {at}, and on with the data after step "
                f"{progress.step}. Further times are only counted."
            )


def _with_text(error: Diverged, text: str) -> Diverged:
    return Diverged(text, step=error.step, tensor=error.tensor, lr=error.lr)

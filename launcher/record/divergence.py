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
    return Diverged(
        f"{error} {last_good} Try a smaller lr, or clip_grad=1.",
        step=step if error.step is None else error.step,
        tensor=error.tensor,
        lr=error.lr,
    )


def divergence_behind(error: Exception, session: Supervised) -> Diverged | None:
    """What is not finite in the model of a run that has failed; None if it is not to blame.

    Actions of NaN, for example, are refused by an environment or by a distribution.
    """
    try:
        session.check_finite()
    except Diverged as found:
        return Diverged(
            f"{found} It then raised {reason(error).rstrip('.')}.",
            tensor=found.tensor,
            lr=found.lr,
        )
    except Exception:  # After some errors a GPU answers nothing any more.
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

    Attributes:
        count: How often it went back.
    """

    MOST = 10  # In a run.
    MOST_TO_ONE = 3  # To the same checkpoint.

    def __init__(
        self, session: Supervised, checkpoints: Checkpoints, report: Callable[[str], None]
    ):
        self._session, self._checkpoints, self._report = session, checkpoints, report
        self.count, self._to, self._last = 0, 0, Path()

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
        kept = self._checkpoints.numbered()
        if not kept:
            raise error
        self._to = self._to + 1 if kept[0] == self._last else 1
        self._last = kept[0]
        if self.count >= self.MOST or self._to > self.MOST_TO_ONE:
            times = (
                f"{self.count} times"
                if self.count >= self.MOST
                else f"{self._to - 1} times to {kept[0]}"
            )
            raise _because(error, f"on_nan=rollback went back {times}, and it diverged again.")
        state, _ = self._checkpoints.newest(without=("replay",))
        if state is None:
            raise error
        at = state["progress"]["step"]
        try:
            self._session.roll_back(state)
            self._session.check_finite(closely=True)
        except (CheckpointError, Diverged) as second:
            raise _because(error, f"on_nan=rollback cannot go back: {second}") from second
        self.count += 1
        if self.count == 1:
            self._report(
                f"{error} on_nan=rollback: back to the weights of step {at}, and on with the data after step "
                f"{self._session.progress.step}. Further times are only counted."
            )


def _because(error: Diverged, why: str) -> Diverged:
    return Diverged(f"{error} {why}", step=error.step, tensor=error.tensor, lr=error.lr)

"""What is said of a run that diverged, and whether a run that failed had diverged before."""

from __future__ import annotations

from ...replay import Diverged
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
            f"{found} It then raised {type(error).__name__}: {error}.",
            tensor=found.tensor,
            lr=found.lr,
        )
    except Exception:  # After some errors a GPU answers nothing any more.
        return None
    return None

"""One run, from composed settings to the `Run` that `ml` returns."""

from __future__ import annotations

from ..replay.ranks import part
from .alike import in_turn, of_this_rank, start_alike
from .batch_size import plan_that_fits
from .loop import run
from .open_run import OpenRun
from .process import Workplace
from .record.supervisor import Supervisor
from .run import Run
from .session import Session
from .settings.settings import Settings


def train(settings: Settings) -> Run:
    """Plan a run, build its session, learn every task, and return the results.

    Raises:
        ConfigError: Before any training, for anything that cannot work.
        Diverged: If the loss becomes NaN or infinite.
        Interrupted: After a signal, once the run is saved.
    """
    workplace = Workplace()  # Restores the caller's random streams, threads, ... afterwards.
    with workplace.spell(), workplace.signals.caught():
        plan = of_this_rank(plan_that_fits(settings))
        with (
            in_turn(lambda: Session.build(plan, workplace)) as session,
            Supervisor(session.plan, session, workplace.signals) as supervisor,
        ):
            supervisor.resume()  # If asked to, and if there is a checkpoint.
            start_alike(session, workplace)
            workplace.signals.note_only()
            run(session, supervisor)
            part()
            workplace.signals.shared = False
            supervisor.finish()
    return OpenRun(settings, session, supervisor).result()

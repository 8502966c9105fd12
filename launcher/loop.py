"""The only training loop: learns tasks one after another, from data sets or environments."""

from __future__ import annotations

from ..replay import Diverged
from .live_run import LiveRun
from .record.supervisor import Supervisor
from .session import Session


def run(session: Session, supervisor: Supervisor) -> None:
    """Learn all remaining tasks; afterwards the model rests, in eval mode.

    Raises:
        Diverged: If the loss becomes NaN or infinite.
        Interrupted: After a signal, once the run is saved.
    """
    session.rest.end()
    with supervisor.watching():
        for task in session.tasks_left():
            learn_task(task, session, supervisor)
            if supervisor.stopped_by is not None:
                break
    session.rest.begin()


def learn_task(task: int, session: Session, supervisor: Supervisor) -> None:
    """Learn one task, or the rest of it in a resumed run, and score the tasks seen.

    A callback may end the run, in the middle of the task or after it.
    """
    callbacks = session.callbacks
    _begin(session, supervisor)
    if callbacks.stopping is not None:
        _stop(session, supervisor)
        return
    session.begin(task)
    if session.progress.owes == "evaluation":  # A resumed run that was interrupted in it.
        _evaluate(session, supervisor)
    supervisor.begin_task()
    while not session.task_is_over():
        try:
            _step(session, supervisor)
        except Exception as error:
            if not supervisor.recover(error):
                raise
        if callbacks.stopping is not None and not session.task_is_over():
            _stop(session, supervisor)
            return
    _last_row(session, supervisor)
    row = session.end(task)  # Also a row of the matrix.
    supervisor.write("eval", row)
    callbacks.evaluated(row)
    supervisor.task_ended(task)
    callbacks.task_ended()
    supervisor.save_task()  # Only now: the callbacks' states know the task.
    if task >= session.own_tasks - 1:
        _end(session, supervisor)
    elif callbacks.stopping is not None:
        _stop(session, supervisor)


def _step(session: Session, supervisor: Supervisor) -> None:
    """Collect data, learn from it, and do what is due then."""
    callbacks = session.callbacks
    supervisor.check()  # Saves when due; stops here, where everything is consistent.
    taken = session.collect()
    for _ in range(session.learning_steps(taken)):
        session.learner.step(session.replay, session.log)
    supervisor.stepped()
    if callbacks.on_step is not None:
        callbacks.on_step()
    if session.row_due(taken):
        supervisor.write("train", session.training_row())
    if session.evaluation_due(taken):
        _evaluate(session, supervisor)


def _evaluate(session: Session, supervisor: Supervisor) -> None:
    """Evaluate in mid-task."""
    row = session.evaluate()
    supervisor.evaluated(row)
    session.callbacks.evaluated(row)
    supervisor.check()  # The evaluation may have ended the task.


def _last_row(session: Session, supervisor: Supervisor) -> None:
    """Write what a task logged since its last row, unless that went back to an earlier state."""
    try:
        supervisor.write("train", session.training_row())
    except Diverged as error:
        if not supervisor.recover(error):
            raise


def _begin(session: Session, supervisor: Supervisor) -> None:
    """Tell the callbacks that learning begins, unless it has."""
    if not session.callbacks.named:
        return
    if session.callbacks.begins:
        supervisor.start()  # They may write into the run directory, which must be this run's by then.
    session.callbacks.begin(LiveRun(session, supervisor))


def _stop(session: Session, supervisor: Supervisor) -> None:
    """End the run as a callback wished: saved as it is, so that it can be resumed, then evaluated."""
    who = session.callbacks.stopping
    assert who is not None
    supervisor.stop(who)
    # After the checkpoint: a resumed run writes these rows again, when they are due.
    supervisor.write("train", session.training_row())
    supervisor.write("eval", session.final_row())
    _end(session, supervisor)


def _end(session: Session, supervisor: Supervisor) -> None:
    """Tell the callbacks that the run has ended, and write what they logged since the last row."""
    session.callbacks.ended()
    if session.callbacks.named:
        supervisor.write("train", session.training_row())

"""The only training loop: learns tasks one after another, from data sets or environments."""

from __future__ import annotations

from .record.supervisor import Supervisor
from .session import Session


def run(session: Session, supervisor: Supervisor) -> None:
    """Learn all remaining tasks; afterwards the model rests, in eval mode.

    Raises:
        Diverged: If the loss becomes NaN or infinite.
        Interrupted: After SIGINT or SIGTERM, once the run is saved.
    """
    session.rest.end()
    with supervisor.watching():
        for task in session.tasks_left():
            learn_task(task, session, supervisor)
    session.rest.begin()


def learn_task(task: int, session: Session, supervisor: Supervisor) -> None:
    """Learn one task, or the rest of it in a resumed run, and score the tasks seen."""
    session.begin(task)
    while not session.task_is_over():
        supervisor.check()  # Saves when due; stops here, where everything is consistent.
        taken = session.collect()
        for _ in range(session.learning_steps(taken)):
            session.learner.step(session.replay, session.log)
        supervisor.stepped()
        if session.row_due(taken):
            supervisor.write("train", session.training_row())
        if session.evaluation_due(taken):
            supervisor.evaluated(session.evaluate())
            supervisor.check()  # The evaluation may have ended the task.
    supervisor.write("train", session.training_row())
    supervisor.write("eval", session.end(task))  # A row of the matrix.
    supervisor.task_ended(task)

"""An open run: learnt task by task, evaluated in between, and continued after its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..envs.world import World
from ..replay import ConfigError
from ..replay.randomness import forked_randomness, seed_everything
from .assembly.later import read_later
from .assembly.schedule import duration_of
from .batch_size import plan_that_fits
from .learn.later import check_classes, check_grows
from .loop import learn_task, run
from .metrics import PLACES
from .plainly import plainly
from .process import Workplace, taking_turns
from .record.supervisor import Supervisor
from .run import Run
from .session import Session
from .settings.compose import compose
from .settings.plan import make_plan
from .settings.settings import Settings

if TYPE_CHECKING:
    from .inference.examining import Examiner
    from .inference.policy import Policies
    from .inference.predicting import Predictor
    from .inference.trained import Trained


class OpenRun:
    """A session and its supervisor, which `ml.tasks` and `Run` call repeatedly.

    Methods change the process only while they run. Between calls, the model is as after a finished run: in
    eval mode, with averaged weights.

    Args:
        settings: The composed settings, which errors refer to.
        session: Everything that learns.
        supervisor: The session's supervisor.
    """

    def __init__(self, settings: Settings, session: Session, supervisor: Supervisor):
        self.settings, self.session, self.supervisor = settings, session, supervisor

    @classmethod
    def build(cls, settings: Settings) -> Self:
        """Plan and build a run, claim its directory, and continue what is there if asked to.

        Raises:
            ConfigError, DataError, CheckpointError: For anything that cannot work.
        """
        workplace = Workplace()
        with workplace.spell(), workplace.signals.caught(), ExitStack() as opened:
            plan = plan_that_fits(settings)
            session = opened.enter_context(Session.build(plan, workplace))
            signals = workplace.signals
            supervisor = opened.enter_context(Supervisor(session.plan, session, signals))
            supervisor.resume()
            opened.pop_all()  # Stays open until `close`.
        return cls(settings, session, supervisor)

    @property
    def world(self) -> World:
        """What it learns from."""
        return self.session.world

    @property
    def status(self) -> str:
        """ "open", "waiting" for the data of a later task, or how the run has ended."""
        return self.supervisor.status

    @property
    def stopped(self) -> bool:
        """Whether a callback has ended the run before its time."""
        return self.supervisor.stopped_by is not None

    @property
    def tasks_learnt(self) -> int:
        """Number of tasks learnt so far."""
        return self.session.progress.task

    # ---------------------------------------------------------------------------- task by task

    def learn(self) -> None:
        """Learn every task that is left; raises as `run` does."""
        with self.session.workplace.spell():
            run(self.session, self.supervisor)

    def learn_task(self) -> None:
        """Learn the current task, or what is left of it; raises as `run` does."""
        session, supervisor = self.session, self.supervisor
        with session.workplace.spell():
            session.rest.end()
            with supervisor.watching():
                learn_task(session.progress.task, session, supervisor)
            session.rest.begin()

    def evaluate(self, tasks: range) -> list[dict[str, float]]:
        """The current metrics of each of these tasks, without advancing the run.

        Args:
            tasks: Their numbers, from 0.

        Raises:
            ConfigError: In environments, once the run has ended.
        """
        session, progress = self.session, self.session.progress
        if session.world.closed:
            raise ConfigError(
                f"This run has ended ({self.status}), and its environments are closed."
            )
        with session.workplace.spell(moves_on=False):
            session.rest.end()
            try:
                evaluate, whole = session.scoring.evaluate, session.finished
                return evaluate(tasks, step=progress.step, whole=whole)
            finally:
                if progress.begun:
                    session.world.go_on(progress.task, session.replay)
                session.rest.begin()

    def row(self, task: int) -> dict[str, float]:
        """The metrics of the evaluation at the end of a task, from the journal; empty if it is not learnt.

        Args:
            task: Its number, from 0.
        """
        rows = (row for row in reversed(self.supervisor.journal.history) if row["mode"] == "eval")
        found = next((row for row in rows if row["task"] == task), {})
        return {name: value for name, value in found.items() if name not in PLACES}

    def check_open(self) -> None:
        """Raise ConfigError if the run has ended."""
        if self.status != "open":
            raise ConfigError(
                f"This run has ended ({self.status}) and cannot be trained further. Call ml.tasks again, "
                "with resume=True to continue from its last checkpoint."
            )

    def finish(self) -> Run:
        """Report the end of a run whose tasks are all learnt, and draw its plots."""
        with self.session.workplace.spell(moves_on=False):
            self.supervisor.finish()
        return self.result()

    def result(self) -> Run:
        """The `Run` so far."""
        session, progress = self.session, self.session.progress
        result = Run(
            agent=session.own,
            spec=session.world.spec,
            metrics=dict(progress.metrics),
            history=self.supervisor.journal.history,
            replay=session.replay,
            path=session.path,
            accuracy_matrix=np.array(progress.matrix, dtype=np.float64),
            task_il_matrix=np.array(progress.task_il, dtype=np.float64),
            tasks=self.supervisor.tasks,
        )
        vars(result)["_open"] = self
        return result

    def close(self, reason: str = "") -> None:
        """Release everything. An unfinished run is saved and marked interrupted.

        Args:
            reason: What interrupted it, for `status.json`.
        """
        if self.supervisor.closed:
            return
        # Without waiting: garbage collection may call this in a thread for which a working run waits.
        with taking_turns(waits=False) as undisturbed, ExitStack() as stack:
            if undisturbed:
                stack.enter_context(self.session.workplace.spell(moves_on=False))
            was_open = self.status == "open"
            # If disturbed, another run uses the random streams, and the last checkpoint has to do.
            self.supervisor.close(reason, save=undisturbed)
            if was_open and undisturbed and not self.session.rest:
                self.session.rest.begin()
            self.session.close()

    # ---------------------------------------------------------------------------- a later task

    def learn_later(
        self, result: Run, data: Any, name: str | None, test_dataset: Any
    ) -> dict[str, float]:
        """Learn data that arrived later, as one more task, and bring `result` up to date.

        A resumed run must receive the data it has learnt again, in order, and skips it.

        Args:
            result: The `Run` to update in place.
            data: As for `dataset=`.
            name: Name of the task; None: that of the data.
            test_dataset: Held-out data; None: that of the data, or a fixed fifth.

        Returns:
            The metrics at the task's end.

        Raises:
            ConfigError, DataError: If the run cannot learn the data; the run is then unchanged.
            Diverged, KeyboardInterrupt, SystemExit: As `ml` does.
        """
        given = {"dataset": data} | ({} if test_dataset is None else {"test_dataset": test_dataset})
        settings = compose((), given)
        try:
            task = plainly(settings, lambda: self._learn_later(settings, name))
        finally:
            vars(result).update(vars(self.result()))
        return self.row(task)

    def _learn_later(self, settings: Settings, name: str | None) -> int:
        """Add a task, learn it, and finish the run again; returns the task's number."""
        session, supervisor, plan = self.session, self.supervisor, self.session.plan
        if self.status not in ("finished", "waiting"):
            todo = "learn its own tasks first"
            todo = todo if self.status == "open" else "call ml with resume=true"
            raise ConfigError(
                f"learn_task needs a finished run, and this one is {self.status}: {todo}."
            )
        check_grows(session.world, session.learner, session.own, online=plan.online)
        self.close()  # In a loop over its tasks, it is still open.
        with session.workplace.spell(moves_on=False):
            seed_everything(plan.seed)
            known = session.world.growing().columns
            train, test = read_later(make_plan(settings, of_run=plan), known)
            check_classes(session.world, session.learner.strategies, train, name)
            world = session.world.growing()
            expected, task = world.expecting, world.filled
            with supervisor.reclaiming():
                world.add(train, test, name=name)
        session.reopen()
        duration = duration_of(len(world.rows(len(self.world.tasks) - 1)), session.schedule, plan)
        supervisor.reopen(more_steps=duration.learning_steps)
        try:
            if not expected:
                session.grow()
                supervisor.journal.expect(session.num_tasks)
            if task < session.progress.task:  # It was learnt before the resume.
                session.fill(task)
                supervisor.ending.status = "finished"
                return task
            self._learn_added(task, expected=expected)
            self.finish()
        finally:
            self.close(f"{self.world.tasks[task].name} was being learnt.")
        return task

    def _learn_added(self, task: int, *, expected: bool) -> None:
        """Learn a task whose rows have been added.

        Args:
            task: Its number, from 0.
            expected: Whether a resumed run was waiting for these rows.
        """
        session, supervisor = self.session, self.supervisor
        with session.workplace.spell():
            session.rest.end()
            if task == 1 and not expected:
                session.scoring.add_task_il()
            with supervisor.watching():
                if expected:
                    session.fill(task)
                learn_task(task, session, supervisor)
            session.rest.begin()

    # ------------------------------------------------------------ predicting and acting, later

    def predictor(self) -> Predictor:
        """Predicts for raw inputs."""
        from .inference.predicting import Predictor

        session = self.session
        world: Any = session.world
        return Predictor(
            session.learner,
            session.plain,
            world,
            session.plan,
            playing=self.playing,
            resting=lambda: bool(session.rest),
        )

    def examiner(self) -> Examiner:
        """Evaluates on held-out rows, or on other data."""
        from .inference.examining import Examiner

        session, progress = self.session, self.session.progress
        learnt = min(progress.task + progress.begun, session.num_tasks) or 1
        world: Any = session.world
        return Examiner(
            self.predictor(),
            session.plan,
            lambda: world,
            learnt=learnt,
            step=progress.step,
            scored=session.scoring.evaluate.policy,
        )

    @contextmanager
    def exporting(self) -> Iterator[Trained]:
        """Runs the block with the process settings of an evaluation, and the model ready to be exported."""
        from .inference.trained import Trained

        session, learner = self.session, self.session.learner
        with self.playing(), nullcontext() if session.rest else learner.evaluating():
            yield Trained(
                session.own, learner, session.plain, session.world, session.plan, session.path
            )

    def policies(self) -> Policies:
        """Policies that accept the environments' raw observations and return their actions."""
        from .inference.policy import Policies  # Imports gymnasium.

        session, envs = self.session, self.world.environments()
        return Policies(
            session.learner,
            session.plain.observe,
            envs.interfaces,
            resting=lambda: bool(session.rest),
            layout=envs.info_layout,
        )

    def make_env(self, task: int, **arguments: Any) -> Any:
        """Make a new copy of an environment.

        Args:
            task: The environment's number in the sequence, from 0.
            arguments: For `gymnasium.make`, such as `render_mode`.
        """
        return self.world.environments().make(task, **arguments)

    def eval_limit(self, task: int) -> int | None:
        """Number of steps after which an episode is cut; None: episodes end by themselves."""
        return self.world.environments().eval_limit(task)

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Runs the block with the process settings of an evaluation, then restores the previous ones."""
        seed = self.session.plan.seed
        with self.session.workplace.spell(moves_on=False), forked_randomness(seed):
            yield

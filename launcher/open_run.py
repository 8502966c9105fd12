"""An open run: learnt task by task, evaluated in between, and finished."""

from __future__ import annotations

import functools
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from ..agents.policy.raw_observations import takes_normalised, takes_raw
from ..replay import ConfigError, Diverged
from ..replay.randomness import forked_randomness, seed_everything
from .assemble import assemble
from .assembly.later import read_later
from .assembly.schedule import build_durations, build_schedule, total_steps
from .learn.actor import Actor
from .learn.evaluate import Evaluator
from .learn.later import check_classes, check_grows
from .learn.loop import Loop
from .process import Workplace, taking_turns
from .record.checkpoint import Checkpoints
from .record.console import Console
from .record.directory import RunDirectory
from .record.header import header
from .record.log import CSV, Journal, Writer
from .record.offline import check_path
from .record.pictures import Spared, build_pictures, draw_model, draw_run
from .record.supervisor import Interrupted, Keeper
from .record.trackers import Tracker, check_installed
from .run import Run
from .session import Session
from .settings.plan import Plan, make_plan
from .settings.settings import Settings
from .settings.unread import of_the_optimiser

if TYPE_CHECKING:
    from .inference.policy import Policies

_PLACE = ("mode", "step", "epoch", "task")  # What a row says beside its metrics.


class OpenRun:
    """A run from start to finish; built, and its directory claimed, on construction.

    Methods change the process only while they run. Between them the model is as after a finished run: in
    eval mode, with averaged weights.

    Args:
        settings: What words, code and presets ask for.

    Attributes:
        plan: What was decided.
        status: "open", "waiting" for the data of a later task, or how the run has ended, as `status.json`
            says it.
        own_tasks: How many tasks the settings say there are; later ones are added to them.

    Raises:
        ConfigError, DataError, CheckpointError: For anything that cannot work.
    """

    def __init__(self, settings: Settings):
        self.settings, self.status = settings, "open"
        self._workplace, self._held = Workplace(), ExitStack()
        self._seconds, self._closed = 0.0, False
        self._modes: dict[nn.Module, bool] | None = None  # Of its modules, while it rests.
        self._averaged = False  # Whether it rests with averaged weights.
        with self._workplace.spell():
            try:
                self._build()
            except BaseException:
                self._held.close()
                raise

    def _build(self) -> None:
        """Assemble the parts, claim the directory, and continue a run or begin one."""
        plan = make_plan(self.settings)
        check_installed(plan.loggers)
        parts = assemble(plan, self._workplace, self._held)
        self.plan = plan = parts.plan
        self.world, self.learner, self.replay = parts.world, parts.learner, parts.replay
        self.own = parts.own
        world, learner, replay, plain = parts.world, parts.learner, parts.replay, parts.plain
        self.path = path = run_path(plan, world)
        check_path(plan, path)
        schedule = build_schedule(plan, world)
        directory = RunDirectory(path, resume=plan.resume)
        self._held.callback(directory.close)
        self.journal = journal = _journal(plan, path, tasks=len(world.tasks))
        self._held.callback(journal.close)
        self.console = console = Console(
            enabled=plan.progress,
            total=total_steps(schedule, plan, world),
            told=world.told,
        )
        self._held.callback(console.stop)
        self._observe = plain.observe
        acts = world.acts and not replay.offline
        actor = Actor(learner, plain.observe, as_stored=plain.as_stored) if acts else None
        session = Session(plan, world, learner, actor, replay, schedule, journal)
        self.session, self.at, self.own_tasks = session, session.at, len(world.tasks)
        self.checkpoints = Checkpoints(path / "checkpoints")
        evaluate = self._evaluator(plain)
        about: dict[str, Any] = {
            "where": parts.where,
            "placed": parts.placed,
            "rates": parts.rates[:1],
        }
        console.header(header(plan, world, learner, replay, path, **about))
        for problem in parts.rates[1:]:
            console.problem(problem)
        draw = functools.partial(
            draw_model, parts.own, learner.agent, parts.obs, path / "plots", console
        )
        if plan.resume:
            directory.resume = _resume(session, self.checkpoints, console)
        if not directory.resume:
            learner.strategies.check_fresh()
        self.keeper = Keeper(
            directory,
            self.checkpoints,
            journal,
            console,
            at=session.at,
            config_yaml=plan.yaml(),
            snapshot=session.state_dict,
            is_good=learner.is_finite,
            save_every=plan.save_every,
            newest_loss=lambda: session.log.last("loss"),
            begun=Spared(draw, "picture of the model", console.problem)
            if plan.render_model
            else None,
        )
        self._first_step = session.at.step
        self.loop = Loop(
            world,
            learner,
            actor,
            replay,
            schedule=schedule,
            at=session.at,
            evaluate=evaluate,
            log=session.log,
            journal=journal,
            keeper=self.keeper,
        )

    def _evaluator(self, plain: Any) -> Evaluator:
        """What scores the tasks, and draws what a generative model makes.

        Args:
            plain: Makes floats of stored observations, without augmentation.
        """
        plan, console = self.plan, self.console
        samples = build_pictures(plan, self.world, self.path)
        draw = None if samples is None else Spared(samples, "pictures of samples", console.problem)
        return Evaluator(
            self.world,
            self.learner,
            transform=plain,
            episodes=plan.eval_episodes,
            rows=plan.eval_rows,
            seed=plan.seed,
            folder=self.path / "videos",
            draw=draw,
            show=console.evaluating,
        )

    def __enter__(self) -> OpenRun:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def learn(self) -> None:
        """Learn every task that is left.

        Raises:
            Diverged: If the loss becomes NaN or infinite.
            Interrupted: After SIGINT or SIGTERM, once the run is saved.
        """

        def each() -> None:
            while self.at.task < self.own_tasks:
                self.loop.learn_task()

        self._learn(each)

    def learn_task(self) -> None:
        """Learn the current task, or what is left of it; raises as `learn` does."""
        self._learn(self.loop.learn_task)

    def learn_later(self, settings: Settings, name: str | None) -> int:
        """Learn data that arrived later, as one more task; returns its number.

        A resumed run must receive the data it has learnt again, in order, and skips it.

        Args:
            settings: Which data that is, and what is held out of it.
            name: Of the task.

        Raises:
            ConfigError, DataError: If the run cannot learn it; then it stays as it was.
            Diverged, Interrupted: As `learn` does.
        """
        if self.status not in ("finished", "waiting"):
            todo = (
                "learn its own tasks first" if self.status == "open" else "call ml with resume=true"
            )
            raise ConfigError(
                f"learn_task needs a finished run, and this one is {self.status}: {todo}."
            )
        check_grows(self.world, self.learner, self.own, online=self.plan.online)
        self.close()  # Inside a loop over its tasks it is still open.
        with self._workplace.spell(moves_on=False):
            seed_everything(self.plan.seed)
            train, test = read_later(settings, self.plan)
            check_classes(self.world, self.learner.strategies, train, name)
            world = self.world.growing()
            expected, before = world.expecting, world.filled
            directory = self.keeper.directory
            if self._claimed != _newest(self.checkpoints):
                raise ConfigError(
                    f"{self.path} no longer holds this run: another run replaced it. Give a run that is to "
                    "be continued a separate path=."
                )
            directory.reopen()
            try:
                world.add(train, test, name=name)
            except BaseException:
                directory.close()
                raise
        self._reopen()
        try:
            if not expected:
                self.session.grow()
            if before < self.at.task:
                self.session.fill(before)
                self.status = "finished"
                return before
            self._learn(lambda: self._learn_added(before, expected=expected))
            self.finish()
        finally:
            self.close(f"{self.world.tasks[before].name} was being learnt.")
        return before

    def _learn_added(self, task: int, *, expected: bool) -> None:
        if expected:
            self.session.fill(task)
        elif task == 1 and self.world.spec.discrete and not self.at.task_il:
            # With a second task, to tell the task makes a difference for the first one, too.
            (scores,) = self.loop.evaluate(range(1), step=self.at.step, whole=True)
            if "task_il_accuracy" in scores:
                self.at.task_il.append([scores["task_il_accuracy"], math.nan])
        self.loop.learn_task()

    def _reopen(self) -> None:
        """Acquire again what `close` released."""
        self.status, self._closed, held = "open", False, self._held
        held.callback(self.keeper.directory.close)
        held.callback(self.journal.close)
        held.callback(self.console.stop)
        self.learner.strategies.open()
        held.callback(self.learner.strategies.close)
        if self.learner.own is not None:
            self.learner.own.look()
            held.callback(self.learner.own.close)
        self._first_step, self._seconds = self.at.step, 0.0
        total = self.console.total
        if total is not None:
            *_, added = build_durations(self.loop.schedule, self.plan, self.world)
            self.console.total = total + added.learning_steps

    def _learn(self, learn: Callable[[], None]) -> None:
        """Learn under supervision; whatever goes wrong is the run's end, and `status.json` says so."""
        at, keeper, console = self.at, self.keeper, self.console
        with self._workplace.spell():
            self._wake()
            began = time.monotonic()
            try:
                with keeper:
                    learn()
                    keeper.start()
            except Diverged as error:
                self._end("diverged", reason=str(error))
                kept = self.checkpoints.numbered()
                last = (
                    f"The last good checkpoint is {kept[0]}."
                    if kept
                    else "There is no checkpoint yet."
                )
                raise Diverged(f"{error} {last} Try a smaller lr, or clip_grad=1.") from None
            except Exception as error:
                self._end("failed", reason=f"{type(error).__name__}: {error}")
                raise
            except Interrupted as error:
                self.status = "interrupted"  # Which the keeper has written with the checkpoint.
                console.stop()
                outcome = f"saved to {self.path}" if error.saved else "not saved"
                console.note(f"Interrupted by {error} at step {at.step}; {outcome}.")
                raise
            except BaseException as error:  # A second signal, or SystemExit in the user's code.
                self._end("interrupted", reason=type(error).__name__)
                raise
            self._seconds += time.monotonic() - began
            console.stop()
            self._rest()

    def evaluate(self, tasks: range) -> list[dict[str, float]]:
        """The current metrics of each of these tasks, without advancing the run."""
        if self.world.closed:
            raise ConfigError(
                f"This run has ended ({self.status}), and its environments are closed."
            )
        whole = self.at.task == len(self.world.tasks)
        with self._workplace.spell(moves_on=False):
            self._wake()
            try:
                return self.loop.evaluate(tasks, step=self.at.step, whole=whole)
            finally:
                if self.at.begun:
                    self.world.go_on(self.at.task, self.replay)
                self._rest()

    def finish(self) -> Run:
        """Report the end of a run whose tasks are all learnt, and draw its plots."""
        if self.at.task < len(self.world.tasks):
            return self._wait()
        with self._workplace.spell(moves_on=False):
            self._last_words()
            self.journal.close()
            self._end("finished")
            if self.plan.plot:
                self._draw()
            steps = self.at.step - self._first_step
            self.console.finished(self.at, self.path, seconds=self._seconds, steps=steps)
        return self.result()

    def _wait(self) -> Run:
        """Pause a resumed run in the middle of a task whose data has not arrived yet."""
        task = self.world.tasks[self.at.task]
        reason = (
            f"Task {self.at.task}, {task.name}, is half learnt. Call run.learn_task with the same data "
            "and name to continue it."
        )
        self._end("interrupted", reason=reason)
        self.status = "waiting"
        self.console.note(reason)
        return self.result()

    def result(self) -> Run:
        """The `Run` so far."""
        at = self.at
        run = Run(
            agent=self.own,
            spec=self.world.spec,
            metrics=dict(at.metrics),
            history=self.journal.history,
            replay=self.replay,
            path=self.path,
            accuracy_matrix=np.array(at.matrix, dtype=np.float64),
            task_il_matrix=np.array(at.task_il, dtype=np.float64),
            tasks=self.keeper.tasks,
        )
        vars(run)["_open"] = self
        return run

    def policies(self) -> Policies:
        """What the model does in each environment, by their own observations and actions."""
        from .inference.policy import Policies  # Which needs gymnasium.

        envs = self.world.environments()
        resting = lambda: self._modes is not None  # noqa: E731
        return Policies(
            self.learner, self._observe, envs.interfaces, resting=resting, layout=envs.info_layout
        )

    def make_env(self, task: int, **arguments: Any) -> Any:
        """A fresh copy of an environment."""
        return self.world.environments().make(task, **arguments)

    def eval_limit(self, task: int) -> int | None:
        """Steps after which an episode played in an environment is cut; None: it ends by itself."""
        return self.world.environments().eval_limit(task)

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Inside, the process is set up as for an evaluation, and as before afterwards."""
        with self._workplace.spell(moves_on=False), forked_randomness(self.plan.seed):
            yield

    def row(self, task: int) -> dict[str, float]:
        """The evaluation at the end of a task that was learnt, as the journal has it."""
        rows = (row for row in reversed(self.journal.history) if row["mode"] == "eval")
        found = next((row for row in rows if row["task"] == task), {})
        return {name: value for name, value in found.items() if name not in _PLACE}

    def check_open(self) -> None:
        """Raise ConfigError if nothing can be learnt any more."""
        if self.status != "open":
            raise ConfigError(
                f"This run has ended ({self.status}) and cannot be trained further. Call ml.tasks again, "
                "with resume=True to continue from its last checkpoint."
            )

    def fail(self, reason: str) -> None:
        """Say that the run has failed."""
        self._end("failed", reason=reason)

    def close(self, reason: str = "") -> None:
        """Release everything. A run that neither finished nor failed is marked interrupted.

        Args:
            reason: What interrupted it.
        """
        if self._closed:
            return
        self._closed = True
        # Not waiting: Python may collect garbage in a thread that the run at work waits for.
        with taking_turns(waits=False) as undisturbed, ExitStack() as stack:
            if undisturbed:
                stack.enter_context(self._workplace.spell(moves_on=False))
            if self.status == "open":
                if (
                    undisturbed
                ):  # Otherwise another run uses the random streams: keep the last checkpoint.
                    self._wake()
                    self.keeper.save_newest()
                    self._rest()
                self._end("interrupted", reason=reason)
            self._held.close()
            self._claimed = _newest(self.checkpoints)

    def _end(self, status: str, **details: Any) -> None:
        self.status = status
        self.keeper.finish(status, **details)

    def _rest(self) -> None:
        """Leave the model as a finished run does: in eval mode, with averaged weights if there are any."""
        learner = self.learner
        self._modes = {module: module.training for module in learner.agent.modules()}
        if learner.average is not None and learner.optimised:
            learner.parameters.look()
            learner.average.swap()
            self._averaged = True
        learner.agent.eval()
        takes_raw(self.own, self.world.normalizer)

    def _wake(self) -> None:
        """Put the model back into the state of its last learning step."""
        if self._modes is None:
            return
        takes_normalised(self.own)
        if self._averaged:
            assert self.learner.average is not None
            self.learner.average.swap()
        # Module by module: a part that the user froze in eval mode stays so.
        for module, training in self._modes.items():
            module.training = training
        self._modes, self._averaged = None, False

    def _last_words(self) -> None:
        """Warn about settings that had no effect, or less than expected."""
        plan, learner, console = self.plan, self.learner, self.console
        learner.unreached.warn()
        if (
            learner.unmoved.begun
            and not learner.optimised
            and (problem := learner.unmoved.problem())
        ):
            console.problem(problem)
        if learner.own is not None and learner.optimised:
            learner.own.warn_of_schedulers()
        name = plan.model.short_name
        if learner.steps and not learner.optimised and self.at.step > self._first_step:
            for key in of_the_optimiser(plan):
                if key in learner.traits.reads:
                    continue
                console.problem(
                    f"`{key}` had no effect: {name} updates itself. `model.lr=...` and the "
                    "like set its own arguments, where it has them."
                )
        if learner.updates.scaler is not None and learner.steps and not learner.optimised:
            console.problem(
                f"precision=16: {name} updates itself, so its losses were not scaled, and small "
                "gradients may have been lost. precision=bf16 needs no scaling."
            )

    def _draw(self) -> None:
        """The run's curves and matrices."""
        world, at, tasks = self.world, self.at, self.keeper.tasks
        many = f" in {len(world.tasks)} tasks" if len(world.tasks) > 1 else ""
        Spared(draw_run, "pictures of the run", self.console.problem)(
            self.path,
            self.journal.history,
            matrix=at.matrix,
            # Where tasks share their outputs, to tell the task makes no difference.
            task_il=at.task_il if at.task_il and world.scenario != "domain" else None,
            told=world.told,
            parameters=tasks[-1].get("parameters") if tasks else None,
            names=world.task_names,
            title=f"{self.plan.model.short_name} on {world.name}{many}, seed {self.plan.seed}",
        )


def _journal(plan: Plan, path: Path, *, tasks: int) -> Journal:
    writers: list[Writer] = []
    for name in plan.loggers:
        if name == "csv":
            writers += [CSV(path / f"{m}.csv", mode=m, tasks=tasks) for m in ("train", "eval")]
        else:
            writers.append(Tracker(name, path, dict(plan.values)))
    return Journal(writers)


def _newest(checkpoints: Checkpoints) -> tuple[str, int] | None:
    """Identifies a run's newest checkpoint among those of other runs at the same path."""
    kept = checkpoints.numbered()
    return (kept[0].name, (kept[0] / "manifest.json").stat().st_mtime_ns) if kept else None


def _resume(session: Session, checkpoints: Checkpoints, console: Console) -> bool:
    """Continue from the newest valid checkpoint; returns whether there was one."""
    state, problems = checkpoints.newest()
    for problem in problems:
        console.problem(f"Passed over: {problem}")
    if state is None:
        console.note(
            f"No checkpoint to resume from in {checkpoints.folder.parent} yet: starting from scratch."
        )
        return False
    session.load_state_dict(state, console)
    return True


def run_path(plan: Plan, world: Any) -> Path:
    """The run directory, absolute."""
    if plan.path is not None:
        return Path(plan.path).absolute()
    names = (plan.model.short_name, world.name, str(plan.seed))
    safe = [re.sub(r"[^\w.+-]+", "-", name) for name in names]
    return Path("runs", plan.experiment, *safe).absolute()

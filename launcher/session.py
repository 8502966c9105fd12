"""A session: everything that changes while a run learns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from ..replay.devices import moving
from ..replay.randomness import random_state, set_random_state
from ..replay.ranks import ranks
from ..replay.samplers import Epochs
from .assemble import Assembly, assemble
from .assembly.schedule import build_schedule, duration_of, total_steps
from .last_predictions import LastPredictions
from .learn.actor import Actor
from .learn.callbacks import build_callbacks
from .learn.measures import build_evaluator, build_watched
from .learn.rest import Rest
from .learn.scoring import Scoring
from .process import Workplace
from .record.console import Console
from .record.csv_file import Row
from .record.log import Log
from .record.offline import check_path
from .record.pictures import draws_data
from .record.place import check_place, run_path
from .record.progress import Progress
from .record.rank_parts import check_number, number_of
from .record.resumption import Resumption, config_text, saved_device
from .record.spec_state import spec_state
from .record.state import check_object, load_object_state, object_state
from .record.trackers import missing
from .record.validation import check_parts
from .report import Report
from .settings.plan import Plan
from .settings.schema import that_count
from .settings.warn import warn_caller


class Session:
    """World, learner, actor, replay, progress and log of a run.

    Use as a context manager, or call `close`: environments and background readers are open.

    Attributes:
        plan: The decided settings.
        world: A sequence of tasks over data, or over environments.
        learner: The model and what trains it.
        actor: Chooses actions; None on data and offline, where nothing acts.
        replay: Source of the batches.
        schedule: How long tasks are, and when to learn, log and evaluate.
        scoring: Evaluates tasks during and after learning.
        progress: Steps, tasks and scores so far.
        log: What was logged since the last row.
        own: The user's module, which may be only a part of what learns.
        own_tasks: Number of tasks that the settings name, without those added by `Run.learn_task`.
        path: The run directory, absolute.
        console: Shows messages and progress to the user.
        workplace: The process settings of the run (random streams, threads, import paths).
        rest: Switches the model between learning and rest (eval mode, averaged weights).
        report: Header, costs, warnings and pictures of the run.
        callbacks: The user's objects that are called while it learns.
        plain: Turns stored observations into the model's inputs, without augmentation.
        first_step: The step at which this process began or resumed the run.
        earlier: Settings that had other values before the run was resumed, as `config_text` takes them.
    """

    def __init__(self, parts: Assembly, workplace: Workplace, path: Path, opened: ExitStack):
        plan, world, learner, replay = parts.plan, parts.world, parts.learner, parts.replay
        self.plan, self.world, self.learner, self.replay = plan, world, learner, replay
        self.progress, self.log, self.first_step = Progress(), Log(), 0
        self.earlier: list[dict[str, Any]] = []
        self.own, self.own_tasks, self.path = parts.own, len(world.tasks), path
        self.workplace, self.rest = workplace, Rest(learner, parts.own, world.normalizer)
        self.schedule = schedule = build_schedule(plan, world)
        total = total_steps(schedule, plan, world)
        self.console = Console(enabled=plan.progress, total=total, told=world.told)
        self.plain, acts = parts.plain, world.acts and not replay.offline
        observe, as_stored = parts.plain.observe, parts.plain.as_stored
        self.actor = Actor(learner, observe, as_stored=as_stored) if acts else None
        drawn = draws_data(plan, world)
        predictions = LastPredictions(world.spec, told=world.told) if drawn else None
        evaluate = build_evaluator(
            plan,
            world,
            learner,
            parts.own,
            transform=parts.plain,
            path=path,
            console=self.console,
            predictions=predictions,
            poll=workplace.signals.poll,
        )
        self.scoring = Scoring(
            world,
            learner,
            replay,
            schedule=schedule,
            progress=self.progress,
            evaluate=evaluate,
            watched=build_watched(plan, world, evaluate),
        )
        self.callbacks = build_callbacks(plan.callbacks or (), world.spec, learner.device)
        self.report = Report(
            plan,
            world,
            learner,
            replay,
            own=parts.own,
            obs=parts.obs,
            path=path,
            where=parts.where,
            placed=parts.placed,
            rates=parts.rates,
            scored=evaluate.policy,
            predictions=predictions,
        )
        self._opened = opened
        # What a resumed run needs from its checkpoint once the current task's data is passed again.
        self._awaited: dict[str, Any] | None = None

    @classmethod
    def build(cls, plan: Plan, workplace: Workplace) -> Self:
        """Build everything that the plan names: world, model, learner, replay.

        Args:
            plan: The decided settings.
            workplace: Must be within a spell; receives the run's threads and arithmetic.

        Raises:
            ConfigError, DataError, CheckpointError: For anything that cannot work; nothing stays open then.
        """
        # First, before the minutes that loading data may take.
        for problem in missing(plan.loggers).values():
            warn_caller(problem)
        check_place(run_path(plan), known=plan.path is not None)
        with ExitStack() as opened:
            parts = assemble(plan, workplace, opened)
            # Only now: the default path contains the name of the world.
            opened.enter_context(parts.learner.updates.reduction.of_own_steps())
            path = run_path(parts.plan, parts.world)
            check_path(parts.plan, path)
            ranks().own_streams(plan.seed)  # Only now: all ranks begin with the same weights.
            return cls(parts, workplace, path, opened.pop_all())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -------------------------------------------------------------------------------- the loop

    def tasks_left(self) -> Iterator[int]:
        """Numbers of the tasks that are not learnt yet, starting with the one in progress."""
        while self.progress.task < self.own_tasks:
            yield self.progress.task

    def begin(self, task: int) -> None:
        """Begin a task, unless a resumed run is in the middle of it.

        Args:
            task: Its number, from 0.
        """
        if self.progress.begun:
            return
        if task == 0:
            self.scoring.begin_run()
        self.world.begin(task, self.replay)
        self.progress.begin_task()
        # Without borders, the learner must not notice that the data changes: to it, all is one task.
        if self.schedule.borders or task == 0:
            self.learner.begin_task(task, self.replay)

    def task_is_over(self) -> bool:
        """Whether the current task has had its steps or epochs, or was stopped early."""
        return self.schedule.over(self.progress, self.replay)

    def collect(self) -> int:
        """Make the next data available for learning; returns the steps taken.

        Those are environment steps, or 1 on data and offline, where a step is a learning step.
        """
        progress = self.progress
        taken = self.world.collect(progress.task, self.actor, self.replay)
        progress.task_step += taken
        progress.step += taken
        return taken

    def learning_steps(self, taken: int) -> int:
        """Number of learning steps after `taken` steps."""
        return self.schedule.learning_steps(self.progress, taken)

    def row_due(self, taken: int) -> bool:
        """Whether a row of train.csv is due after `taken` steps."""
        # Vector environments take several steps at once, and may jump over the multiple itself.
        return self.progress.step % self.schedule.log_every < taken

    def training_row(self) -> Row:
        """The means of what was logged since the last row; empty if nothing was.

        Raises:
            Diverged: If a loss, a weight or a buffer is NaN or infinite.
        """
        # Once per row: reading a loss at every step would wait for the device.
        self.log.pool()
        logged = self.log.take(finite=self.learner.skipped is not None)
        self.check_finite(logged)
        values = {**logged, **self.world.episode_metrics(self.progress.newest_task)}
        if not values:
            return {}
        lr = {} if self.learner.lr is None else {"lr": self.learner.lr}
        return {**self.progress.place(self.replay.epoch), **values, **lr}

    def evaluation_due(self, taken: int) -> bool:
        """Whether an evaluation is due after `taken` steps; `end` evaluates the end of a task."""
        single = len(self.world.tasks) == 1
        due = self.schedule.evaluation_due(self.progress, taken, self.replay, single=single)
        return due and not self.task_is_over()

    def evaluate(self) -> Row:
        """Evaluate in mid-task, which may stop the task early; returns a row of eval.csv, or an empty one.

        Raises:
            Diverged: If something is NaN or infinite, a metric included.
            Left: If a signal came meanwhile. A run that is saved then owes the evaluation.
        """
        self.check_finite(closely=True)
        self.learner.updates.reduction.check()
        self.progress.owes = "evaluation"
        row = self.scoring.in_task()
        self.progress.owes = ""
        return row

    def final_row(self) -> Row:
        """Evaluate a run that ends before its time; returns a row of eval.csv, or an empty one."""
        return self.scoring.at_stop()

    def end(self, task: int) -> Row:
        """End the current task and score the tasks seen; returns a row of eval.csv, or an empty one.

        Raises:
            Diverged: If something is NaN or infinite, a metric included.
            Left: If a signal came meanwhile. A run that is saved then owes the scores.
        """
        if self.progress.owes != "scores":
            # First: strategies consolidate the weights with which the task ends.
            self.scoring.choose_weights()
            if self.schedule.borders or task == len(self.world.tasks) - 1:
                self.learner.end_task(self.replay)
            self.check_finite(closely=True)
            self.progress.owes = "scores"
        row = self.scoring.end_task()
        self.progress.end_task()
        return row

    # ------------------------------------------------------------------------------- its state

    def awake(self) -> AbstractContextManager[None]:
        """Runs the block with the weights that are trained, in place of averaged ones."""
        return self.rest.interrupted()

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly; tensors are the session's own, not copies."""
        begun = self.progress.begun and not self.replay.offline
        pack = functools.partial(object_state, whole=True)
        return {
            "device": str(self.learner.device),
            "progress": self.progress.state_dict(),
            "learner": self.learner.state_dict(),
            "replay": self.replay.state_dict(),
            "augmentation": object_state(self._augmentation),
            **self.world.state_dict(self.progress.task if begun else None, pack=pack),
            "actor": self.actor.state_dict() if self.actor is not None else None,
            "log": self.log.state_dict(),
            "random": random_state(self.learner.device),
            "settings": dict(self.plan.values),
            "objects": list(self.plan.objects),
            "given": sorted(self.plan.given - that_count("incidental")),
            "earlier": self.earlier,
            **({"ranks": ranks().sources} if ranks().own else {}),
            "name": self.world.name,
            **({"callbacks": states} if (states := self.callbacks.state_dict()) else {}),
            "spec": spec_state(self.world.spec),
        }

    def model_state(self) -> dict[str, Tensor]:
        """The user's module as its finished run has it, by its own names: with averaged weights."""
        return self.rest.weights()

    def pool(self) -> None:
        """Make this rank's state that of all ranks, before rank 0 saves it."""
        self.learner.updates.reduction.check()
        self.learner.updates.pool()
        self.log.pool()

    def check_finite(
        self, row: Mapping[str, float] | None = None, *, closely: bool = False
    ) -> None:
        """Check that nothing has become NaN or infinite: such a model must not displace a good checkpoint.

        Args:
            row: What was logged since the last row.
            closely: Also check averages, waiting gradients, and the optimisers' states.

        Raises:
            Diverged: Naming what is not finite.
        """
        self.learner.watchdog.check(
            self.learner.steps, row, closely=closely, normalizer=self.world.normalizer
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the checkpoint left off, and report what is different now.

        Args:
            state: What `state_dict` returned; of any other origin, `check_structure` must have accepted it.

        Raises:
            CheckpointError, ConfigError: If the checkpoint belongs to another model or sequence.
        """
        check_number(number_of(state))
        resumption = Resumption(state, self.plan, self.world, self.replay, self.console)
        self._check(state)
        state = resumption.state
        for known in state.get("later", ()):
            self.world.growing().expect(known)
            self.grow()
            self._awaited = {"replay": state["replay"], "random": state["random"]}
        progress = self.progress
        progress.load_state_dict(state["progress"])
        before, now = saved_device(state), self.learner.device
        with moving(before, now) as move:
            self.learner.load_state_dict(state["learner"], but=resumption.restarted)
            load_object_state(self._augmentation, state["augmentation"])
        # Only now: weights that do not fit say more than the names of two classes.
        resumption.check_modules()
        if resumption.new_rates:
            self.learner.reset_hyperparameters()
        self.console.note(f"Resumed at step {progress.step}.")
        self.plan, self.earlier = resumption.accept(progress.step)
        self._load_world(state, resized=resumption.resized)
        self.log.load_state_dict(state["log"])
        self.callbacks.load_state_dict(state.get("callbacks", {}))
        if progress.owes == "scores" and not self.task_is_over():
            progress.owes = ""  # The task has been made longer, and will end again.
        # After everything that may draw random numbers while it is restored.
        if not set_random_state(state["random"], now):
            move.restarted.insert(0, "what models draw on their device")
        if move.restarted:
            self.console.problem(
                f"The checkpoint was written on {before.type}, this run is on {now.type}: random streams "
                f"cannot be continued across the two and start over ({', '.join(move.restarted)})."
            )
        self.first_step = progress.step

    def _check(self, state: dict[str, Any]) -> None:
        """Check a state of any origin against what this session would save, before it uses any of it.

        Raises:
            CheckpointError: Naming what does not fit.
        """
        here: dict[str, Any] = self.world.state_dict(None, pack=lambda _: None)
        tasks = len(self.world.tasks) + len(state.get("later", ()))
        check_parts(state, here, tasks=tasks)
        check_object(self._augmentation, state["augmentation"])

    def _load_world(self, state: dict[str, Any], *, resized: bool) -> None:
        """Restore the world and the replay, in the middle of a task or between two.

        Args:
            resized: Whether an epoch may have another number of batches now.
        """
        progress, finished = self.progress, self.finished
        task = progress.task - finished if progress.begun or finished else None
        episodes = {**state, "environment": None} if finished else state
        continues = self.world.load_state_dict(
            episodes, task, self.replay, unpack=load_object_state, problem=self.console.problem
        )
        if continues and self.actor is not None:
            self.actor.load_state_dict(state["actor"])
        sampler = self.replay.sampler
        if resized and isinstance(sampler, Epochs) and sampler.drawn:
            progress.shift = progress.task_step - sampler.drawn
        if not finished:
            return
        # A finished run may be continued with more steps or epochs: then its last task resumes.
        progress.task, progress.begun = progress.task - 1, True
        if self.task_is_over():
            progress.end_task()
            self.console.note("This run is finished: there is nothing left to learn.")
        else:
            for matrix in (progress.matrix, progress.task_il):
                del matrix[progress.task :]

    @property
    def _augmentation(self) -> Callable[[Tensor], Tensor] | None:
        augment: Callable[[Tensor], Tensor] | None = getattr(self.replay.transform, "augment", None)
        return augment

    # ---------------------------------------------------------------------------- a later task

    def grow(self) -> None:
        """Extend replay, strategies, schedule and progress by a task that was just added to the world."""
        number, world, learner = len(self.world.tasks) - 1, self.world, self.learner
        self.replay.set_task(number, world.growing().rows(number))
        learner.strategies.context.add_task(world.classes(number))
        if learner.scheduler is not None:
            rows = world.growing().later[-1]["rows"]
            learner.scheduler.add_duration(duration_of(rows, self.schedule, self.plan))
        self.progress.widen(len(world.tasks))

    def fill(self, task: int) -> None:
        """Use the rows of a task that a resumed run has received again, and continue in the middle of it.

        Args:
            task: Its number, from 0.
        """
        self.replay.set_task(task, self.world.growing().rows(task))
        awaited, progress = self._awaited, self.progress
        if awaited is not None and progress.begun and progress.task == task:
            self.world.resume(task, self.replay, awaited["replay"])
            set_random_state(awaited["random"], self.learner.device)
            self._awaited = None

    def reopen(self) -> None:
        """Open again what `close` closed, to learn another task."""
        self.first_step = self.progress.step
        self.learner.strategies.open()
        self._opened.callback(self.learner.strategies.close)
        if self.learner.own is not None:
            self.learner.own.look()
            self._opened.callback(self.learner.own.close)

    def close(self) -> None:
        """Close environments, readers, and the hooks on the user's module."""
        self._opened.close()

    # ----------------------------------------------------------------- for its supervisor: Supervised

    @property
    def finished(self) -> bool:
        """Whether all tasks are learnt, those added later included."""
        return self.progress.task == len(self.world.tasks)

    @property
    def num_tasks(self) -> int:
        """Number of tasks, those added later included."""
        return len(self.world.tasks)

    def roll_back(self, state: dict[str, Any]) -> None:
        """Return what learns to its state in a checkpoint of the same task, while steps and data go on.

        Raises:
            CheckpointError: If it comes from an earlier task.
        """
        with moving(saved_device(state), self.learner.device):
            self.learner.roll_back(state["learner"])
        if (normalizer := self.world.normalizer) is not None and state["normalizer"] is not None:
            normalizer.load_state_dict(state["normalizer"])
        if self.actor is not None:
            self.actor.state = None  # A recurrent model's, which the weights made.
        self.progress.owes = ""
        self.log.take()

    def check_fresh(self) -> None:
        """Refuse strategies that another run has used already.

        Raises:
            ConfigError: Naming one.
        """
        self.learner.strategies.check_fresh()

    def config_text(self) -> str:
        """The text of config.yaml: what the run uses, and what it used before it was resumed."""
        return config_text(self.plan, self.earlier)

    def newest_loss(self) -> Tensor | float | None:
        """The last loss since the newest row, on the run's device."""
        return self.log.last("loss")

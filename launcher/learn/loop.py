"""The one loop: tasks of data or of environments, learnt one after another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ...envs.world import World
from ...replay import Replay
from ..assembly.schedule import Schedule
from ..metrics.scores import by_task, mean_over_tasks, score, transfer
from ..record.log import Journal, Log
from ..record.progress import Progress
from ..record.supervisor import Keeper
from .actor import Actor
from .evaluate import Evaluator
from .learner import Learner
from .stopping import EarlyStopping


class Loop:
    """Learns the tasks of a world in turn, each from where it was left.

    Args:
        actor: Acts in the environments; None on data and offline.
        at: Where to start, and kept up to date; a resumed run continues in mid-task.
        keeper: Told of each step; shows, saves, and raises to interrupt.
    """

    def __init__(
        self,
        world: World,
        learner: Learner,
        actor: Actor | None,
        replay: Replay,
        *,
        schedule: Schedule,
        at: Progress,
        evaluate: Evaluator,
        log: Log,
        journal: Journal,
        keeper: Keeper,
    ):
        self.world, self.learner, self.actor, self.replay = world, learner, actor, replay
        self.schedule, self.at, self.evaluate = schedule, at, evaluate
        self.log, self.journal, self.keeper = log, journal, keeper
        self.stopping = EarlyStopping(
            world, learner, patience=schedule.patience, restore=schedule.restore
        )

    @property
    def last(self) -> int:
        """The last task's number."""
        return len(self.world.tasks) - 1

    def learn_task(self) -> None:
        """Learn the current task, or the rest of it, and evaluate the tasks seen."""
        if not self.at.begun:
            self._begin()
        self._learn()
        self._end()

    def _begin(self) -> None:
        at, task = self.at, self.at.task
        if task == 0 < self.last and not self.evaluate.off:
            scores = self.evaluate(range(self.last + 1), step=0)
            told = self.world.told
            at.baseline = [score(each, told=told) for each in scores]
        self.world.begin(task, self.replay)
        at.begin_task()
        if self.schedule.borders or task == 0:
            self.learner.begin_task(task, self.replay)

    def _learn(self) -> None:
        """Step until the task ends."""
        world, learner, replay, at = self.world, self.learner, self.replay, self.at
        schedule, keeper, log, journal = self.schedule, self.keeper, self.log, self.journal
        task, over = at.task, schedule.over(at, replay)
        while not over:
            taken = world.collect(task, self.actor, replay)
            at.task_step, at.step = at.task_step + taken, at.step + taken
            for _ in range(schedule.learning_steps(at, taken)):
                learner.step(replay, log)
            keeper.stepped()
            if at.step % schedule.log_every < taken:
                write_train_row(world, learner, replay, at, log, journal)
            if over := schedule.over(at, replay):
                break  # The end of the task is evaluated separately.
            if schedule.evaluation_due(at, taken, replay, single=self.last == 0):
                self._look()
                over = at.stopped
            keeper.settled()

    def _look(self) -> None:
        """Evaluate in mid-task."""
        if self.evaluate.off:
            return
        at, validation = self.at, self.schedule.validation
        learnt, seen = self._being_learnt(), at.task + 1
        tasks = range(max(seen, *(task + 1 for task in learnt)))
        scores = self.evaluate(tasks, step=at.step, validation=validation)
        self.world.go_on(at.task, self.replay)
        if at.task_step >= self.schedule.seed_steps:  # Before, nothing can have improved.
            self.stopping.look(at, mean_over_tasks([scores[task] for task in learnt]))
        if at.stopped and not validation:
            return  # The evaluation at the task's end, at this same step, replaces it.
        write_eval_row(
            scores[:seen],
            self.learner,
            self.replay,
            at,
            self.journal,
            self.last,
            validation=validation,
        )
        self.keeper.evaluated()

    def _end(self) -> None:
        """End the task, score the tasks seen, and save."""
        world, learner, replay, at = self.world, self.learner, self.replay, self.at
        task = at.task
        write_train_row(world, learner, replay, at, self.log, self.journal)
        if self.schedule.restore:
            self._choose_weights()
        if self.schedule.borders or task == self.last:
            learner.end_task(replay)
        scores = self.evaluate(self._scored(), step=at.step, whole=task == self.last)
        unknown = [math.nan] * (self.last + 1 - len(scores))
        at.matrix.append([*map(score, scores), *unknown])
        if "task_il_accuracy" in scores[0]:
            at.task_il.append([*(metrics["task_il_accuracy"] for metrics in scores), *unknown])
        if not self.evaluate.off:
            matrix = at.own_matrix(told=world.told)
            returns = "return" in scores[0]
            more = {} if self.last == 0 else transfer(matrix, at.baseline, returns=returns)
            seen = scores[: task + 1]
            write_eval_row(seen, learner, replay, at, self.journal, self.last, more=more)
        at.end_task()
        name = None if world.task_names is None else world.task_names[task]
        self.keeper.task_ended(learner.strategies, last=task == self.last, name=name)

    def _scored(self) -> range:
        """The tasks evaluated after the current one: those seen, and the next one for forward transfer."""
        tasks, seen = self.last + 1, self.at.task + 1
        if self.schedule.eval_future:
            return range(tasks)
        # Forward transfer compares a task's score before it is learnt with the untrained model's.
        return range(min(seen + 1, tasks) if self.at.baseline else seen)

    def _being_learnt(self) -> Sequence[int]:
        """The tasks whose data is learnt: the current one, unless a strategy adds others."""
        return self.replay.given or [self.at.task]

    def _choose_weights(self) -> None:
        """Keep the best weights of the ending task, which may be the newest ones."""
        at, validation = self.at, self.schedule.validation
        if not at.stopped and at.best is not None:
            self.learner.flush(self.replay)
            learnt = self._being_learnt()
            scores = self.evaluate(learnt, step=at.step, validation=validation)
            self.stopping.look(at, mean_over_tasks(scores))
        self.stopping.go_back(at)


def write_train_row(
    world: World, learner: Learner, replay: Replay, at: Progress, log: Log, journal: Journal
) -> None:
    """A row of what was logged since the last one, if anything was."""
    learner.check_losses()
    if values := {**log.take(), **world.episode_metrics(at.task)}:
        lr = {} if learner.lr is None else {"lr": learner.lr}
        place = {"step": at.step, "epoch": replay.epoch, "task": at.task}
        journal.write("train", **place, **values, **lr)


def write_eval_row(
    scores: list[dict[str, float]],
    learner: Learner,
    replay: Replay,
    at: Progress,
    journal: Journal,
    last: int,
    *,
    validation: bool = False,
    more: Mapping[str, float] = {},
) -> None:
    """Write the mean over the tasks seen and, in a sequence, each task's metrics.

    Args:
        last: The last task's number.
        more: Metrics of the sequence.
    """
    metrics = mean_over_tasks(scores)
    learner.evaluated(scores[-1], validation=validation)
    each = by_task(scores) if last > 0 else {}
    metrics = {**metrics, **more}
    if validation:
        metrics, each = ({f"validation_{k}": v for k, v in row.items()} for row in (metrics, each))
    at.metrics = metrics
    place = {"step": at.step, "epoch": replay.epoch, "task": at.task}
    journal.write("eval", **place, **at.metrics, **each)
    learner.strategies.after_evaluation({**at.metrics, **each})

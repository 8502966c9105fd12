"""Evaluates tasks during learning, which may decide when a task ends, and with which weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ...envs.world import World
from ...replay import Diverged, Replay
from ..assembly.schedule import Schedule
from ..metrics.scores import by_task, mean_over_tasks, score, transfer
from ..record.csv_file import Row
from ..record.progress import Progress
from .evaluate import Evaluator
from .finite import FiniteMetrics
from .learner import Learner
from .stopping import EarlyStopping, Watched


class Scoring:
    """The evaluations of a run: before it, in mid-task, and at the end of each task.

    Args:
        replay: Holds the rows that are learnt from; evaluations leave it unchanged.
        schedule: Decides whether a task may end early, and with its best weights.
        progress: Position of the run; receives score matrices, newest metrics and best weights.
        watched: The metric that early stopping follows; None: the loss, or the return.

    Attributes:
        evaluate: Computes the metrics of tasks, without side effects.
    """

    def __init__(
        self,
        world: World,
        learner: Learner,
        replay: Replay,
        *,
        schedule: Schedule,
        progress: Progress,
        evaluate: Evaluator,
        watched: Watched | None = None,
    ):
        self.world, self.learner, self.replay = world, learner, replay
        self.schedule, self.progress, self.evaluate = schedule, progress, evaluate
        self._metrics = FiniteMetrics()
        self._stopping = EarlyStopping(
            world,
            learner,
            patience=schedule.patience,
            restore=schedule.restore,
            watched=watched,
        )

    def begin_run(self) -> None:
        """Score the untrained model on every task of a sequence, for forward transfer."""
        tasks = len(self.world.tasks)
        if tasks > 1 and not self.evaluate.off:
            scores = self.evaluate(range(tasks), step=0)
            self.progress.baseline = [score(each, told=self.world.told) for each in scores]

    def in_task(self) -> Row:
        """Evaluate in mid-task, which may end the task.

        Returns:
            A row of eval.csv; empty if nothing is evaluated, or the task's end is evaluated at this step.
        """
        if self.evaluate.off:
            return {}
        progress, validation = self.progress, self.schedule.validation
        learnt, seen = self._learnt_now(), progress.task + 1
        tasks = range(max(seen, *(task + 1 for task in learnt)))
        scores = self.evaluate(tasks, step=progress.step, validation=validation)
        self.world.go_on(progress.task, self.replay)
        self._check(range(seen), scores)
        if progress.task_step >= self.schedule.seed_steps:  # Before, nothing can have improved.
            self._stopping.look(progress, mean_over_tasks([scores[task] for task in learnt]))
        if progress.stopped and not validation:  # `end_task` evaluates the same at this step.
            return {}
        return self._row(scores[:seen], validation=validation)

    def choose_weights(self) -> None:
        """Keep the best weights of the ending task, which may be the newest ones."""
        if not self.schedule.restore:
            return
        progress, validation = self.progress, self.schedule.validation
        if not progress.stopped and progress.best is not None:
            self.learner.flush(self.replay)
            learnt = self._learnt_now()
            scores = self.evaluate(learnt, step=progress.step, validation=validation)
            self._stopping.look(progress, mean_over_tasks(scores))
        self._stopping.go_back(progress)

    def end_task(self) -> Row:
        """Add a row to the matrix of scores, once the current task is learnt.

        Returns:
            A row of eval.csv; empty if nothing is evaluated.
        """
        progress, tasks = self.progress, len(self.world.tasks)
        last = progress.task == tasks - 1
        scores = self.evaluate(self._tasks_to_score(), step=progress.step, whole=last)
        self._check(range(progress.task + 1), scores)
        unknown = [math.nan] * (tasks - len(scores))
        progress.matrix.append([*map(score, scores), *unknown])
        if "task_il_accuracy" in scores[0]:
            progress.task_il.append([*(each["task_il_accuracy"] for each in scores), *unknown])
        if self.evaluate.off:
            return {}
        more = {} if tasks == 1 else self.transfer(returns="return" in scores[0])
        return self._row(scores[: progress.task + 1], more=more)

    def at_stop(self) -> Row:
        """Evaluate the tasks seen in a run that is stopped, in mid-task or between two tasks.

        Returns:
            A row of eval.csv; empty if nothing is evaluated, or the same was at this step.
        """
        if self.evaluate.off:
            return {}
        progress, tasks = self.progress, len(self.world.tasks)
        before, seen = progress.metrics, progress.newest_task + 1
        scores = self.evaluate(range(seen), step=progress.step, whole=True)
        more = {}
        if tasks > 1 and not progress.begun and progress.matrix:
            more = self.transfer(returns="return" in scores[0])
        row = self._row(scores, more=more)
        return {} if progress.metrics == before else row

    def on_validation_rows(self) -> dict[str, float]:
        """Metrics on the rows that `validation=` holds out, as means over the tasks seen.

        Nothing is written, and learning goes on as without it. Empty if no rows are held out.
        """
        if not self.schedule.validation or self.evaluate.off:
            return {}
        tasks = range(self.progress.newest_task + 1)
        return mean_over_tasks(self.evaluate(tasks, step=self.progress.step, validation=True))

    def _check(self, tasks: range, scores: Sequence[Mapping[str, float]]) -> None:
        """Check that the metrics of these tasks are finite.

        Raises:
            Diverged: Naming the first that is not.
        """
        found, lr = self._metrics.first(tasks, scores), self.learner.lr
        if found is not None:
            at = f"the evaluation at step {self.progress.step}"
            at += "" if lr is None else f" (lr={lr:.3g})"
            what = f"The metric `{found.name}` became {found.word} in {at}"
            raise Diverged(f"{what}; all weights are finite.", tensor=found.name, lr=lr)

    def transfer(self, *, returns: bool) -> dict[str, float]:
        """Forgetting, transfer and similar metrics of the tasks learnt so far.

        Args:
            returns: Whether tasks are scored by returns, not by accuracies.
        """
        matrix = self.progress.own_matrix(told=self.world.told)
        return transfer(matrix, self.progress.baseline, returns=returns)

    def add_task_il(self) -> None:
        """Score the first task of a finished run with the task known, as a second task needs it."""
        if self.progress.task_il or not self.world.spec.has_classes:
            return
        (scores,) = self.evaluate(range(1), step=self.progress.step, whole=True)
        if "task_il_accuracy" in scores:
            self.progress.task_il.append([scores["task_il_accuracy"], math.nan])

    def _row(
        self,
        scores: list[dict[str, float]],
        *,
        validation: bool = False,
        more: dict[str, float] | None = None,
    ) -> Row:
        """The mean over the tasks seen and, in a sequence, each task's metrics.

        Args:
            scores: Metrics of each task seen, the current one last.
            validation: Whether they come from rows held out of the training data.
            more: Metrics of the whole sequence.
        """
        learner, progress = self.learner, self.progress
        learner.evaluated(scores[-1], validation=validation)
        metrics = {**mean_over_tasks(scores), **(more or {})}
        several = len(self.world.tasks) > 1
        each = by_task(scores, own=self.evaluate.policy.own_names) if several else {}
        if validation:
            metrics, each = (
                {f"validation_{name}": value for name, value in row.items()}
                for row in (metrics, each)
            )
        progress.metrics = metrics
        learner.strategies.after_evaluation({**metrics, **each})
        return {**progress.place(self.replay.epoch), **metrics, **each}

    def _tasks_to_score(self) -> range:
        """The tasks evaluated at the end of the current one."""
        seen, tasks = self.progress.task + 1, len(self.world.tasks)
        if self.schedule.eval_future:
            return range(tasks)
        # Forward transfer compares a task's score before it is learnt with the untrained model's.
        return range(min(seen + 1, tasks) if self.progress.baseline else seen)

    def _learnt_now(self) -> Sequence[int]:
        """The tasks whose data is learnt: the current one, unless a strategy adds others."""
        return self.replay.given or [self.progress.task]

"""The tasks of a run one by one, with the caller's code in between: `ml.tasks(...)`."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

from torch import nn

from ..replay import ConfigError, Replay, Spec
from .metrics.scores import by_task, mean_over_tasks
from .open_run import OpenRun
from .plainly import plainly
from .run import Run
from .settings.settings import Settings


class Tasks:
    """A run that the caller steps through task by task.

        for task in ml.tasks(model=Model, dataset="Digits", tasks=5):
            task.learn()
            print(task.name, task.evaluate())

    The results are those of `ml` with the same settings, to the bit. A resumed run begins with the first
    unfinished task. Leaving the loop early closes the run as interrupted.

    Raises:
        ConfigError, DataError, CheckpointError: Before training, for bad input.
    """

    def __init__(self, settings: Settings):
        self._open = OpenRun.build(settings)
        # Closes even if no loop ever begins, and at the latest when Python exits.
        self._close = weakref.finalize(self, _close, self._open)

    def __len__(self) -> int:
        """Number of tasks, including those learnt before a resume."""
        return self._open.session.own_tasks

    def __repr__(self) -> str:
        opened = self._open
        learnt, path = f"{opened.tasks_learnt} of {len(self)}", str(opened.session.path)
        return f"<{learnt} tasks learnt, {opened.status}, path={path!r}>"

    def __iter__(self) -> Iterator[Task]:
        """Iterate over the remaining tasks.

        Raises:
            ConfigError: If a task was skipped, or the run has ended.
        """
        opened = self._open
        if opened.status not in ("finished", "waiting"):
            opened.check_open()
        try:
            for number in range(opened.tasks_learnt, len(self)):
                yield Task(opened, number)
                if opened.stopped:
                    return
                if opened.tasks_learnt <= number:
                    opened.check_open()
                    opened.supervisor.fail(f"Task {number} was not learnt.")
                    raise ConfigError(
                        f"Task {number} ({opened.world.tasks[number].name}) was skipped. Call "
                        "task.learn() for each task."
                    )
            if opened.status == "open":  # Resumed, with nothing left to learn.
                plainly(opened.settings, opened.learn)
                opened.finish()
        finally:
            self._close()

    @property
    def run(self) -> Run:
        """The `Run` so far; after the last task, what `ml` returns."""
        return self._open.result()


class Task:
    """One task of a run.

    Attributes:
        number: From 0.
        name: Such as `classes 0-1`, or the name of its data set or environment.
        classes: Indices of its outputs; empty in environments and for regression.
    """

    def __init__(self, opened: OpenRun, number: int):
        self._open, self.number = opened, number
        self.name: str = opened.world.tasks[number].name
        self.classes: list[int] = opened.world.classes(number).tolist()

    def __repr__(self) -> str:
        return f"Task({self.number}, {self.name!r})"

    def learn(self) -> dict[str, float]:
        """Learn the task to its end; the last one finishes the run.

        Returns:
            Its row of eval.csv: the means over the tasks seen, and the score on each.

        Raises:
            ConfigError: If the run has ended.
            Diverged: If the loss becomes NaN or infinite.
            KeyboardInterrupt, SystemExit: After SIGINT or SIGTERM, once the run is saved.
        """
        opened = self._open
        if opened.tasks_learnt == self.number:
            opened.check_open()
            plainly(opened.settings, opened.learn_task)
            if opened.stopped or opened.tasks_learnt == opened.session.own_tasks:
                opened.finish()
        return opened.row(self.number)

    def evaluate(self) -> dict[str, float]:
        """The metrics of the tasks up to this one, as in a row of eval.csv, without side effects.

        Raises:
            ConfigError: In environments, once the run has ended.
        """
        opened = self._open
        scores = plainly(opened.settings, lambda: opened.evaluate(range(self.number + 1)))
        metrics = mean_over_tasks(scores)
        if len(opened.world.tasks) == 1:
            return metrics
        if opened.tasks_learnt == self.number + 1:
            metrics |= opened.session.scoring.transfer(returns="return" in metrics)
        own = opened.session.scoring.evaluate.policy.own_names
        return metrics | by_task(scores, own=own)

    @property
    def agent(self) -> nn.Module:
        """The user's module, in eval mode until learning continues."""
        return self._open.session.own

    @property
    def spec(self) -> Spec:
        """The observation and action spaces that the model was built for."""
        return self._open.world.spec

    @property
    def replay(self) -> Replay:
        """The replay that the run learns from."""
        return self._open.session.replay

    @property
    def run(self) -> Run:
        """The `Run` so far."""
        return self._open.result()


def _close(opened: OpenRun) -> None:
    done, of = opened.tasks_learnt, opened.session.own_tasks
    opened.close(f"The loop over the tasks ended after {done} of {of}.")

"""What a call of `ml` gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import nn

from ..replay import ConfigError, Replay, Spec

if TYPE_CHECKING:
    from .open_run import OpenRun


@dataclass
class Run:
    """A finished run.

    Attributes:
        agent: The trained module, the user's own object, in eval mode on the run's device.
        spec: What it was built from.
        metrics: The final evaluation; over a sequence of tasks, the mean of all of them.
        history: The rows of train.csv and eval.csv, in order.
        replay: What it learnt from.
        path: The run directory.
        accuracy_matrix: float64 `[tasks, tasks]`: row i after learning task i, column j on task j; NaN for
            tasks after the next one, unless `eval_future=true`. With `eval_rows`, all rows but the last are
            measured on the sample.
            The main metric (return, accuracy or R2) where that is not accuracy. Of classes split
            into tasks it is class-IL: all classes compete.
        task_il_matrix: The same with the task known, so that only its classes compete; the same as
            `accuracy_matrix` where tasks share their classes, empty where there are no classes.
        tasks: For each task `steps`, `seconds`, and `memory_bytes` and `parameters` of strategies.
    """

    agent: nn.Module
    spec: Spec
    metrics: dict[str, float]
    history: list[dict[str, Any]]
    replay: Replay
    path: Path
    accuracy_matrix: np.ndarray = field(repr=False)
    task_il_matrix: np.ndarray = field(repr=False)
    tasks: list[dict[str, Any]] = field(default_factory=list, repr=False)
    # Not a field: copying or comparing a Run concerns its results only.
    _open: ClassVar[OpenRun | None] = None

    def learn_task(
        self, data: Any, name: str | None = None, *, test_dataset: Any = None
    ) -> dict[str, float]:
        """Learn data that arrived later, as one more task of this finished run.

            run = ml(model=Model, dataset=first, num_classes=10, strategy="er")
            run.learn_task(second, "second")

        The run keeps its settings; `metrics`, the matrices (which gain a row and a column) and the run
        directory are updated. Inputs are standardised by the statistics of the run's first data. With
        `resume=true`, the same calls with the same data skip what was learnt and continue.

        Args:
            data: As for `dataset=`, such as a `DataLoader`, but a single data set.
            name: Name of the task; None: that of the data.
            test_dataset: Its held-out data; None: its own test part, else a fixed fifth.

        Returns:
            The row of eval.csv at the task's end: the means over all tasks so far, and each score.

        Raises:
            ConfigError, DataError: Before training, for data that the run cannot learn.
            Diverged, KeyboardInterrupt, SystemExit: As `ml` does.
        """
        if (opened := self._open) is None:
            raise ConfigError(
                "This Run is a copy and holds only results. Call learn_task on the Run that ml returned, "
                "or on one that ml returns with resume=True."
            )
        from .config import compose
        from .plainly import plainly

        given = {"dataset": data} | ({} if test_dataset is None else {"test_dataset": test_dataset})
        settings = compose((), given)
        try:
            number = plainly(settings, lambda: opened.learn_later(settings, name))
        finally:
            vars(self).update(vars(opened.result()))
        return opened.row(number)

    def __getstate__(self) -> dict[str, Any]:
        """The results, without the run itself."""
        return {name: value for name, value in vars(self).items() if name != "_open"}

    def __repr__(self) -> str:
        metrics = ", ".join(f"{name}={value:.4g}" for name, value in self.metrics.items())
        return f"Run({metrics}, path={str(self.path)!r})"

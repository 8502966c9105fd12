"""The run that callbacks see while it learns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..replay import Replay, Spec
from ..replay.suggestions import did_you_mean
from .record.csv_file import Row
from .record.log import Log
from .record.supervisor import Supervisor
from .session import Session


class LiveRun:
    """A view of a run in progress, with the names that the finished `Run` has, and a few more.

    The objects are the run's own, not copies.

    Attributes:
        agent: The user's module, in training mode.
        spec: The observation and action spaces that it was built for.
        metrics: The newest evaluation, by metric, as a copy; empty before the first one.
        history: The rows of train.csv and eval.csv so far.
        replay: The replay it learns from.
        path: The run directory.
        step: Steps so far: learning steps on data, environment steps otherwise.
        epoch: Passes over the current task's data.
        task: The current task, from 0; in `on_task`, the one that was just learnt.
        tasks_learnt: Number of tasks that are learnt and scored.
        optimizer: The optimiser; None for a model without parameters.
        log: Records scalars for train.csv: `run.log.name = value`.
        device: The device of the model.
    """

    __slots__ = ("_session", "_supervisor")

    def __init__(self, session: Session, supervisor: Supervisor):
        object.__setattr__(self, "_session", session)
        object.__setattr__(self, "_supervisor", supervisor)

    @property
    def agent(self) -> nn.Module:
        return self._session.own

    @property
    def spec(self) -> Spec:
        return self._session.world.spec

    @property
    def metrics(self) -> dict[str, float]:
        return dict(self._session.progress.metrics)

    @property
    def history(self) -> Sequence[Row]:
        return self._supervisor.journal.history

    @property
    def replay(self) -> Replay:
        return self._session.replay

    @property
    def path(self) -> Path:
        return self._session.path

    @property
    def step(self) -> int:
        return self._session.progress.step

    @property
    def epoch(self) -> int:
        return self._session.replay.epoch

    @property
    def task(self) -> int:
        return self._session.progress.newest_task

    @property
    def tasks_learnt(self) -> int:
        return self._session.progress.task

    @property
    def optimizer(self) -> Optimizer | None:
        return self._session.learner.optimizer

    @property
    def log(self) -> Log:
        return self._session.log

    @property
    def device(self) -> torch.device:
        return self._session.learner.device

    def save(self) -> bool:
        """Write a checkpoint now; returns whether it was written.

        Raises:
            Diverged: If a weight is NaN or infinite, which ends the run.
        """
        return self._supervisor.save()

    def validate(self) -> dict[str, float]:
        """Metrics on the rows that `validation=` holds out, as means over the tasks seen; empty without any.

        Evaluations after a task use the test rows: this is for decisions that must not see those.
        """
        return self._session.scoring.on_validation_rows()

    def __getattr__(self, name: str) -> Any:
        known = [known for known in dir(type(self)) if not known.startswith("_")]
        near = " Did you mean `agent`?" if name == "model" else did_you_mean(name, known)
        raise AttributeError(f"The live run has no `{name}`.{near} It has: {', '.join(known)}.")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f'The live run cannot be changed (`{name}`). To end it, return "stop" from a callback.'
        )

    def __repr__(self) -> str:
        return f"<live run at step {self.step}, path={str(self.path)!r}>"

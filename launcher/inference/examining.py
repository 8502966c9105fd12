"""Evaluates a trained run: on its held-out rows, or on other data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from ...envs.held_out import HeldOut
from ...envs.joining import exact_targets
from ...envs.matching import matched
from ...envs.table_world import TableWorld
from ...envs.wishes import Evaluation
from ...replay import ConfigError
from ...replay.randomness import forked_randomness
from ...replay.tree import leaves
from ..assembly.data import read_to_evaluate
from ..assembly.infer import inferred
from ..learn.evaluate import Scored
from ..learn.outputs import Outputs, outputs_of
from ..learn.own_metrics import OwnMetrics, build_own_metrics
from ..metrics.scores import by_task, mean_over_tasks
from ..settings.compose import compose
from ..settings.plan import Plan, make_plan
from ..settings.warn import warn_caller
from .predicting import Predictor


class Examiner:
    """Computes metrics and outputs of a trained model.

    Args:
        predictor: Holds the model.
        plan: The run's plan.
        held_out: Returns the run's data, which it may have to read.
        learnt: Number of tasks that are evaluated.
        step: Steps of the run so far, which seed the model's random draws.
        scored: Measures what the run measures.
        unknown: Names of metrics that cannot be computed as the run did, and are left out.
        more_measured: Whether the run measured further metrics (`metrics=`), which `scored` does not.
    """

    def __init__(
        self,
        predictor: Predictor,
        plan: Plan,
        held_out: Callable[[], TableWorld],
        *,
        learnt: int,
        step: int,
        scored: Scored,
        unknown: Collection[str] = (),
        more_measured: bool = False,
    ):
        self.predictor, self.plan = predictor, plan
        self._held_out, self._learnt, self._step = held_out, learnt, step
        learner, transform = predictor.learner, predictor.transform
        self._how = Evaluation(transform, learner.device, episodes=0, seed=plan.seed)
        self._scored, self._unknown, self._more_measured = scored, unknown, more_measured

    def evaluate(
        self, dataset: object = None, metrics: object = None, *, task: int | None = None
    ) -> dict[str, float]:
        """Metrics of the held-out rows of all tasks learnt so far, or of other data.

        Args:
            dataset: As for `dataset=`; None: the held-out rows.
            metrics: Further metrics, as for `metrics=`.
            task: The task of other data, from 0; None: not known.

        Raises:
            ConfigError: If the data has to be given, or cannot be identified.
            DataError: If it cannot be read, or is not what the run was trained on.
        """
        if task is not None and dataset is None:
            raise ConfigError(
                "task= is the task of other data: give dataset= too, or leave it out."
            )
        if metrics is None and self._more_measured:
            warn_caller(
                "The run also measured what its `metrics=` named. A loaded run does not repeat that: give "
                "metrics= to evaluate."
            )
        scored = self._scored if metrics is None else self._scored.measuring(self._named(metrics))
        rows = self._tasks() if dataset is None else [self._given(dataset, task)]
        with self._working():
            scores = [scored.score_rows(part) for part in rows]
        for name in self._unknown:
            for values in scores:
                values.pop(name, None)
        if dataset is not None:
            return scores[0]
        return {**mean_over_tasks(scores), **(by_task(scores) if len(scores) > 1 else {})}

    def outputs(self) -> dict[str, np.ndarray]:
        """For held-out rows, task by task: `index`, `task`, `label` and `output`.

        Raises:
            ConfigError: If the data has to be given, or the model makes no predictions.
        """
        found: list[Outputs] = []
        with self._working():
            for rows in self._tasks():
                part = outputs_of(self.predictor.learner, rows)
                if part is None:
                    raise ConfigError(
                        f"{type(self.predictor.learner.agent).__name__} has no `forward`, so it makes no "
                        "predictions."
                    )
                found.append(part)
        return {
            "index": _joined([part.index.cpu() for part in found]),
            "task": np.repeat(range(len(found)), [len(part.index) for part in found]),
            "label": _joined([part.label for part in found]),
            "output": _joined([part.output for part in found]),
        }

    def _named(self, metrics: object) -> OwnMetrics:
        """The metrics that the user names."""
        learner = self.predictor.learner
        plan = make_plan(compose((), {"metrics": metrics}), names=("metrics",))
        spec = self.predictor.world.spec
        return build_own_metrics(plan.metrics or (), spec, inferred(spec, device=learner.device))

    def _tasks(self) -> list[HeldOut]:
        """The held-out rows of each task learnt so far."""
        world = self._held_out()
        return [world.held_out(task, self._how, whole=True) for task in range(self._learnt)]

    def _given(self, dataset: object, task: int | None) -> HeldOut:
        """The rows of other data."""
        world = self.predictor.world
        self.predictor.check_task(task)
        named = make_plan(compose((), {"dataset": dataset}), of_run=self.plan).dataset or ()
        if len(named) != 1:
            raise ConfigError(
                f"evaluate accepts one data set at a time, and received {len(named)}. Call it once for each."
            )
        arrays = read_to_evaluate(named[0], self.plan, world.reading, world.spec.action.kind)
        exact = exact_targets([arrays], world.spec)
        table = matched(arrays, world.reading, world.spec).table()
        table.exact = exact
        apart = task is not None and world.spec.has_classes
        return HeldOut(
            task,
            table,
            torch.arange(len(table)),
            classes=world.classes(task) if apart and task is not None else None,
            transform=self._how.transform,
            device=self._how.device,
            shapes=[part.shape for part in leaves(world.spec.obs)],
            task_transform=None if task is None else world.of_task,
        )

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Runs the block in evaluation mode, with the random streams of the run's last evaluation."""
        with self.predictor.working(), forked_randomness(self.plan.seed + self._step):
            yield


def _joined(parts: list[Tensor]) -> np.ndarray:
    joined: np.ndarray = torch.cat(parts).numpy()
    return joined

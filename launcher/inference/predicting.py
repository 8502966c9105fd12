"""Predictions of a trained model for raw inputs, in the form in which the data came in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from numbers import Integral
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ...envs.held_out import rows_at_once
from ...envs.raw_inputs import StoredRows
from ...envs.reading import Reading
from ...envs.transform import Transform
from ...envs.world import WorldSpec
from ...replay import ConfigError
from ...replay.tree import leaves
from ..learn.learner import Learner
from ..learn.predicting import predicted
from ..settings.plan import Plan
from .named_inputs import opened


class Learnt(WorldSpec, Protocol):
    """A world of data, open or loaded.

    Attributes:
        reading: How raw inputs became rows.
    """

    reading: Reading

    def classes(self, task: int) -> Tensor:
        """The outputs that a task's labels use, int64 `[k]`; empty if there are no classes."""

    def of_task(self, rows: Tensor, task: int | Tensor) -> Tensor:
        """Stored rows `[B, *shape]` as the task has them, if it alters them."""


class Predictor:
    """Predicts classes or values for raw inputs.

    Args:
        learner: Holds the model.
        transform: Turns stored rows into the model's inputs, without augmentation.
        world: The data that it learnt from.
        plan: The run's plan, for inputs that are named.
        playing: Sets the process up for an evaluation.
        resting: Whether the model is in evaluation mode already, with averaged weights if there are any.
    """

    def __init__(
        self,
        learner: Learner,
        transform: Transform,
        world: Learnt,
        plan: Plan,
        *,
        playing: Callable[[], AbstractContextManager[None]],
        resting: Callable[[], bool],
    ):
        self.learner, self.transform, self.world = learner, transform, world
        self._plan = plan
        self._playing, self._resting = playing, resting

    # ---------------------------------------------------------------------------- on raw inputs

    def rows(self, inputs: object) -> StoredRows:
        """Raw inputs as stored rows, not read yet.

        Raises:
            DataError: If they are not inputs, or have another shape than those of the training.
        """
        return self.world.reading.rows(opened(inputs, self._plan), self.world.spec.obs)

    def outputs(self, inputs: object, task: int | None = None) -> Tensor:
        """The model's outputs `[N, *action.shape]`, on the CPU.

        Args:
            task: The task of the inputs, from 0; None: not known.

        Raises:
            ConfigError: If the model makes no predictions, or there is no such task.
            DataError: If the inputs are not what it was trained on.
        """
        rows = self.rows(inputs)
        with self.working():
            return torch.cat(list(self.each(rows, task)))

    def predict(self, inputs: object, task: int | None = None) -> np.ndarray:
        """Classes `[N]` as the data had them, or values `[N, ...]`; arguments as for `outputs`."""
        rows = self.rows(inputs)
        with self.working():
            return np.concatenate([self.chosen(part, task) for part in self.each(rows, task)])

    def probabilities(self, inputs: object, task: int | None = None) -> np.ndarray:
        """float32 `[N, n]`, the softmax of the outputs; arguments as for `outputs`.

        Raises:
            ConfigError: Also if the targets are values, or the model returns choices without logits.
        """
        self.check_probable()
        rows = self.rows(inputs)
        with self.working():
            return np.concatenate([self.probable(part, task) for part in self.each(rows, task)])

    # ------------------------------------------------------------------------------ part by part

    @contextmanager
    def working(self) -> Iterator[None]:
        """Runs the block in evaluation mode, without gradients, with the run's arithmetic."""
        learner = self.learner
        # At rest the model holds the averaged weights already.
        evaluating = learner.model.evaluating if self._resting() else learner.evaluating
        with self._playing(), evaluating():
            yield

    def each(self, rows: StoredRows, task: int | None = None) -> Iterator[Tensor]:
        """The outputs for a part of the rows at a time, on the CPU, within `working`; raises as `outputs`."""
        self.check_task(task)
        learner, world = self.learner, self.world
        size = rows_at_once((part.shape for part in leaves(world.spec.obs)), learner.device)
        for stored in rows.parts(size):
            if task is not None:
                stored = world.of_task(stored, task)
            output = predicted(learner, self.transform.observe(stored, learner.device), task)
            if output is None:
                name = type(learner.agent).__name__
                raise ConfigError(f"{name} has no `forward`, so it makes no predictions.")
            yield output.cpu()

    def chosen(self, output: Tensor, task: int | None = None) -> np.ndarray:
        """Classes or values, from the outputs of some rows."""
        reading, space = self.world.reading, self.world.spec.action
        if not space.discrete:
            values: np.ndarray = output.numpy()
            return values[:, 0] if reading.flat and values.ndim == 2 else values
        if output.dim() == 1:  # From `act`.
            return reading.values(output.numpy())
        if space.binary:
            several = (output > 0).to(torch.int64).numpy()
            return several[:, 0] if reading.flat else several
        competing = self._competing(task)
        if competing is None:
            return reading.values(output.argmax(1).numpy())
        return reading.values(competing[output.index_select(1, competing).argmax(1)].numpy())

    def probable(self, output: Tensor, task: int | None = None) -> np.ndarray:
        """Probabilities, from the outputs of some rows; of a known task, 0 for the classes of others."""
        if output.dim() == 1:
            raise ConfigError(
                f"{type(self.learner.agent).__name__}.act returns classes without logits, so there are no "
                "probabilities. run.predict returns the classes."
            )
        if self.world.spec.action.binary:
            return output.sigmoid().numpy()
        competing = self._competing(task)
        if competing is None:
            return output.softmax(1).numpy()
        hidden = torch.full_like(output, -torch.inf)
        hidden[:, competing] = output[:, competing]
        return hidden.softmax(1).numpy()

    def check_probable(self) -> None:
        """Raise ConfigError if the run predicts values."""
        if not self.world.spec.discrete:
            raise ConfigError(
                f"predict_proba needs classes, and the targets of {self.world.name} are values. Use "
                "run.predict."
            )

    def _competing(self, task: int | None) -> Tensor | None:
        """The outputs that may be chosen, int64 `[k]`; None: all."""
        if task is not None:
            return self.world.classes(task)
        classes = self.world.reading.classes
        n = self.world.spec.action.shape[0]
        # Outputs for later classes stand for nothing yet.
        return None if classes is None or len(classes) == n else torch.arange(len(classes))

    def check_task(self, task: int | None) -> None:
        """Raise ConfigError for a task that does not exist."""
        count = len(self.world.tasks)
        if task is None:
            return
        whole = isinstance(task, Integral) and not isinstance(task, bool)
        if whole and 0 <= task < count and count > 1:
            return
        if count == 1:
            raise ConfigError(f"task={task}: {self.world.name} is a single task. Leave task= out.")
        raise ConfigError(f"task={task!r}: {self.world.name} has tasks 0 to {count - 1}.")

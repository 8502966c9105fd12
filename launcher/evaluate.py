"""How well a learner does on held-out data, or in environments of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..agents.traits import hook
from ..replay import Batch, Table
from ..replay.transfer import download, upload
from ..replay.tree import map_tree
from .actor import Actor
from .learner import Learner
from .log import as_floats
from .metrics.accuracy import accuracy, accuracy_among, share_equal
from .metrics.regression import mae, mse, r2
from .plots.samples import generates
from .randomness import forked_randomness

_ROWS = 1000  # Rows per forward: large enough to be fast, small enough for any memory.


class Evaluator:
    """Evaluates a learner on the tasks of a world; training's random streams stay untouched.

    Args:
        transform: Makes floats of stored observations, without augmentation.
        episodes: Per evaluation of an environment.
        seed: Of whatever the model draws while it is evaluated.
        folder: Where videos go.
        draw: Given the model and the step at every evaluation, makes pictures of what it does.
    """

    def __init__(
        self,
        world: Any,
        learner: Learner,
        *,
        transform: Any,
        episodes: int,
        seed: int,
        folder: Path | None = None,
        draw: Callable[[nn.Module, int], None] | None = None,
    ):
        self.world, self.learner, self.transform = world, learner, transform
        self.episodes, self.seed, self.folder, self.draw = episodes, seed, folder, draw

    def __call__(
        self, tasks: range, *, step: int, validation: bool = False
    ) -> list[dict[str, float]]:
        """The metrics of each task; empty ones for a model that can predict nothing.

        Args:
            validation: Of the rows set aside of the training data, not of the test data.
        """
        with self.learner.evaluating(), forked_randomness(self.seed + step):
            if self.draw is not None:
                self.draw(self.learner.agent, step)
            return [self._task(task, step, validation=validation) for task in tasks]

    def _task(self, number: int, step: int, *, validation: bool) -> dict[str, float]:
        task = self.world.tasks[number]
        if self.world.on_data:
            if validation:
                return self._data(self.world.train, task.validation, number)
            return self._data(self.world.test, task.test, number)
        actor = Actor(self.learner, self.transform.observe)
        returns, lengths = task.evaluate(
            lambda obs, began: actor(obs, began)[0],
            episodes=self.episodes,
            folder=self.folder,
            step=step,
        )
        return {
            "return": float(np.mean(returns)),
            "return_stddev": float(np.std(returns)),
            "episode_length": float(np.mean(lengths)),
        }

    def _data(self, table: Table, index: Tensor, task: int) -> dict[str, float]:
        world = self.world
        # Which task a row is of makes a difference only where tasks have classes of their own.
        told = world.scenario is not None and len(world.tasks) > 1 and world.spec.discrete
        aware = told and self.learner.task_aware
        outputs: list[Tensor] = []
        outputs_told: list[Any] = []
        labels: list[Tensor] = []
        for fields in self._batches(table, index, task):
            obs = fields["obs"]
            # A strategy that makes use of the task must do without in class-IL.
            output = self._predict(obs, None if aware else task)
            if output is None:
                return self._generated(table, index, task)
            outputs.append(output)
            labels.append(fields["label"])
            if aware:
                outputs_told.append(self._predict(obs, task))
        parts = {"output": outputs, "label": labels, "told": outputs_told}
        # Metrics are computed on the host, in float64: not every device has it.
        held = download({name: torch.cat(part) for name, part in parts.items() if part})
        held = map_tree(torch.from_numpy, held)
        output, label = held["output"], held["label"]
        if table.exact is not None:  # In the units and with the digits that the data came in.
            label = table.exact[index]
        if not world.spec.discrete:
            values = {"mse": mse(output, label), "mae": mae(output, label), "r2": r2(output, label)}
            return {**values, "loss": values["mse"]}
        if output.dim() == 1:  # A model that acts: its choice is all there is to score.
            return {"accuracy": share_equal(output, label)}
        scores = {"accuracy": accuracy(output, label)}
        if told:
            classes = world.tasks[task].classes
            scores["task_il_accuracy"] = accuracy_among(held.get("told", output), label, classes)
        return {**scores, "loss": float(F.cross_entropy(output.double(), label))}

    def _generated(self, table: Table, index: Tensor, task: int) -> dict[str, float]:
        """Of a model that generates `loss(batch)`, if it has such a method."""
        agent = self.learner.agent
        loss = hook(agent, "loss") if generates(agent) else None
        if loss is None or not len(index):
            return {}
        losses, sizes = [], []
        for fields in self._batches(table, index, task):
            batch = Batch(**fields)
            losses.append(torch.as_tensor(loss(batch)).reshape(()))
            sizes.append(len(batch))
        weighted = zip(as_floats(losses), sizes, strict=True)
        return {"loss": sum(value * size for value, size in weighted) / len(index)}

    def _batches(self, table: Table, index: Tensor, task: int) -> Iterator[dict[str, Any]]:
        """Rows as the model receives them, some at a time."""
        device = self.learner.device
        if table.device.type != "cpu":
            index = upload(index, device)
        for rows in index.split(_ROWS):
            fields: dict[str, Any] = upload(table.gather(rows), device)
            if self.world.alter is not None:
                fields["obs"] = self.world.alter(fields["obs"], task)
            yield self.transform(fields)

    def _predict(self, obs: Tensor, task: int | None) -> Tensor | None:
        output = self.learner.predict(obs, task)
        if output is None and (act := hook(self.learner.agent, "act")) is not None:
            action = act(obs)
            output = action[0] if isinstance(action, tuple) else action
        return output


def mean_over_tasks(results: list[dict[str, float]]) -> dict[str, float]:
    """The mean of every metric that all tasks have."""
    names = [name for name in results[0] if all(name in result for result in results)]
    return {name: float(np.mean([result[name] for result in results])) for name in names}

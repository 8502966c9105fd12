"""How well a learner does on held-out data, or in environments of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..replay import Table
from .actor import Actor
from .learner import Learner
from .metrics.accuracy import accuracy
from .metrics.regression import mae, mse, r2
from .randomness import forked_randomness

_ROWS = 1000  # Rows per forward: large enough to be fast, small enough for any memory.


class Evaluator:
    """Evaluates a learner on the tasks of a world; training's random streams stay untouched.

    Args:
        transform: Makes floats of stored observations, without augmentation.
        episodes: Per evaluation of an environment.
        seed: Of whatever the model draws while it is evaluated.
        folder: Where videos go.
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
    ):
        self.world, self.learner, self.transform = world, learner, transform
        self.episodes, self.seed, self.folder = episodes, seed, folder

    def __call__(self, tasks: range, *, step: int) -> list[dict[str, float]]:
        """The metrics of each task; empty ones for a model that can predict nothing."""
        with self.learner.evaluating(), forked_randomness(self.seed + step):
            return [self._task(self.world.tasks[task], step) for task in tasks]

    def _task(self, task: Any, step: int) -> dict[str, float]:
        if self.world.on_data:
            return self._data(self.world.test, task.test)
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

    def _data(self, table: Table, index: Tensor) -> dict[str, float]:
        outputs, labels = [], []
        device = self.learner.device
        for rows in index.split(_ROWS):
            fields = {k: v.to(device) for k, v in table.gather(rows).items()}
            output = self._predict(self.transform(fields)["obs"])
            if output is None:
                return {}
            outputs.append(output)
            labels.append(fields["label"])
        output, label = torch.cat(outputs), torch.cat(labels)
        if not self.world.spec.discrete:
            values = {"mse": mse(output, label), "mae": mae(output, label), "r2": r2(output, label)}
            return {**values, "loss": values["mse"]}
        if output.dim() == 1:  # A model that acts: its choice is all there is to score.
            return {"accuracy": float((output == label).double().mean())}
        return {
            "accuracy": accuracy(output, label),
            "loss": float(F.cross_entropy(output.double(), label)),
        }

    def _predict(self, obs: Tensor) -> Tensor | None:
        output = self.learner.predict(obs)
        if output is None and callable(act := getattr(self.learner.agent, "act", None)):
            action = act(obs)
            output = action[0] if isinstance(action, tuple) else action
        return output


def mean_over_tasks(results: list[dict[str, float]]) -> dict[str, float]:
    """The mean of every metric that all tasks have."""
    names = [name for name in results[0] if all(name in result for result in results)]
    return {name: float(np.mean([result[name] for result in results])) for name in names}

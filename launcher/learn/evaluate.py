"""Evaluates a learner on held-out data, or in separate copies of environments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from ...envs.held_out import HeldOut
from ...envs.transform import Transform
from ...envs.wishes import Evaluation
from ...envs.world import World
from ...replay import Batch
from ...replay.randomness import forked_randomness
from ..metrics import metrics_of
from ..record.log import as_floats
from ..settings.warn import warn_caller
from .actor import Actor
from .learner import Learner
from .outputs import measure, outputs_of


class Evaluator:
    """Evaluates a learner on the tasks of a world; training's random streams stay untouched.

    Args:
        transform: From stored observations to floats, without augmentation.
        episodes: Episodes per evaluation of an environment; 0: no evaluation.
        rows: Maximum number of held-out rows per task, always the same ones, unless `whole`.
        seed: Seeds the model's random draws in evaluation, and the sample of rows.
        folder: Where videos are saved.
        draw: Called with the model and the step at every evaluation, to draw pictures.
        show: Called with the number of rows or episodes done, their total, and what is counted.
    """

    def __init__(
        self,
        world: World,
        learner: Learner,
        *,
        transform: Transform,
        episodes: int,
        rows: int | None = None,
        seed: int,
        folder: Path | None = None,
        draw: Callable[[nn.Module, int], None] | None = None,
        show: Callable[[int, int, str], None] = lambda *_: None,
    ):
        self.world, self.learner, self.draw, self.show = world, learner, draw, show
        self.policy = Scored(learner, transform, told=world.told)
        self.how = Evaluation(
            transform, learner.device, episodes, rows, seed, folder, warn=warn_caller
        )

    @property
    def off(self) -> bool:
        """Whether the run never evaluates (`eval_episodes=0`), so that all metrics are empty."""
        return not self.world.evaluates(self.how.episodes)

    def __call__(
        self, tasks: Sequence[int], *, step: int, validation: bool = False, whole: bool = False
    ) -> list[dict[str, float]]:
        """The metrics of each task; empty for a model that cannot predict.

        Args:
            tasks: Numbers of the tasks to evaluate.
            step: Steps of the run so far; seeds the model's random draws too.
            validation: Use the rows held out of the training data instead of the test data.
            whole: Use all rows, whatever `rows` says.
        """
        world, how = self.world, self.how
        which = {"validation": validation, "whole": whole}
        counts = [world.evaluated(task, how, **which) for task in tasks]
        done, total = 0, sum(counts)
        with self.learner.evaluating(), forked_randomness(how.seed + step):
            if self.draw is not None:
                self.draw(self.learner.agent, step)
            scores = []
            for task, count in zip(tasks, counts, strict=True):
                before = done

                def show(now: int, what: str, before: int = before) -> None:
                    self.show(before + now, total, what)

                scores.append(world.evaluate(task, self.policy, how, step=step, show=show, **which))
                done += count
            self.show(done, total, "rows")
            return scores


class Scored:
    """Scores a learner's predictions and actions for a world.

    Args:
        transform: From stored observations to floats, without augmentation.
        told: Whether the model knows the task of the rows it predicts.
    """

    def __init__(self, learner: Learner, transform: Transform, *, told: bool):
        self.learner, self._transform, self._told = learner, transform, told

    def actor(self) -> Actor:
        """An actor that chooses greedy actions, starting with new episodes."""
        return Actor(self.learner, self._transform.observe)

    def score_episodes(self, returns: list[float], lengths: list[int]) -> dict[str, float]:
        """Metrics of whole episodes.

        Args:
            returns: Undiscounted return of each episode, float.
            lengths: Length of each episode, in steps.
        """
        return {m.name: m.function(returns, lengths) for m in metrics_of("episodes")}

    def score_rows(self, rows: HeldOut) -> dict[str, float]:
        """Metrics of held-out rows; empty for a model that cannot predict."""
        found = outputs_of(self.learner, rows)
        if found is None:
            return self._generated(rows)
        learner = self.learner
        return measure(found, learner.spec, told=self._told, loss=learner.held_out_loss)

    def _generated(self, rows: HeldOut) -> dict[str, float]:
        """The mean of a generative model's `loss(batch)` over all rows; empty without such a method."""
        can = self.learner.traits
        loss = can.loss if can.generates else None
        if loss is None or not len(rows):
            return {}
        losses, sizes = [], []
        for fields in rows:
            batch = Batch(**fields)
            losses.append(torch.as_tensor(loss(batch)).reshape(()))
            sizes.append(len(batch))
        weighted = zip(as_floats(losses), sizes, strict=True)
        return {"loss": sum(value * size for value, size in weighted) / len(rows)}

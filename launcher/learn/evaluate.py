"""Evaluates a learner on held-out data, or in separate copies of environments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...agents.traits import needs_info
from ...envs.held_out import HeldOut
from ...envs.transform import Transform
from ...envs.wishes import Evaluation
from ...envs.world import World
from ...replay import Batch
from ...replay.randomness import forked_randomness
from ...replay.transfer import download
from ...replay.tree import map_tree
from ..metrics import metrics_of
from ..record.log import as_floats
from ..settings.warn import warn_caller
from .actor import Actor
from .infos import Info
from .learner import Learner


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
        aware = rows.classes is not None and self.learner.task_aware
        outputs: list[Tensor] = []
        outputs_told: list[Any] = []
        labels: list[Tensor] = []
        for fields in rows:
            obs = fields["obs"]
            # Class-IL withholds the task, so a model that uses it predicts a second time, with it.
            output = self._predict(obs, None if aware else rows.task)
            if output is None:
                return self._generated(rows)
            outputs.append(output)
            labels.append(fields["label"])
            if aware:
                outputs_told.append(self._predict(obs, rows.task))
        parts = {"output": outputs, "label": labels, "told": outputs_told}
        # Metrics are computed on the host, in float64: not every device has it.
        held = download({name: torch.cat(part) for name, part in parts.items() if part})
        held = map_tree(torch.from_numpy, held)
        output, label = held["output"], held["label"]
        if (exact := rows.exact) is not None:
            label = exact
        if not self.learner.spec.discrete:
            values = {m.name: m.function(output, label) for m in metrics_of("values")}
            return {**values, "loss": values["mse"]} | self._loss(output, label)
        chosen = output if output.dim() == 1 else output.argmax(-1)
        scores = {m.name: m.function(chosen, label) for m in metrics_of("classes")}
        if output.dim() == 1:  # From `act`: choices without logits, which have no loss.
            return scores
        if rows.classes is not None:
            known = held.get("told", output)
            scores |= {m.name: m.function(known, label, rows.classes) for m in metrics_of("told")}
            if not self._told:  # Training's loss is over all classes: this one would not compare.
                del scores["task_il_loss"]
        scores |= {m.name: m.function(output, label) for m in metrics_of("logits")}
        return scores | self._loss(output, label)

    def _loss(self, output: Tensor, label: Tensor) -> dict[str, float]:
        """What `loss=` names, of all rows at once: training's loss; empty without it."""
        learner = self.learner
        if learner.loss is None:
            return {}
        held = (tensor.to(learner.device) for tensor in (output, label))
        return {"loss": float(learner.loss(*held))}

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

    def _predict(self, obs: Tensor, task: int | None) -> Tensor | None:
        output = self.learner.predict(obs, task)
        if output is None and (act := self.learner.traits.act) is not None:
            action = act(obs, info=Info()) if needs_info(act) else act(obs)
            output = action[0] if isinstance(action, tuple) else action
        return output

"""How well a learner does on held-out data, or in environments of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...agents.traits import needs_info
from ...envs.finals import Finals
from ...replay import Batch, Table
from ...replay.randomness import forked_randomness
from ...replay.transfer import download, upload
from ...replay.tree import leaves, map_tree
from ..metrics import metrics_of
from ..record.log import as_floats
from ..settings.told import warn_caller
from .actor import Actor
from .infos import Info
from .learner import Learner

_ROWS = 1000  # Rows per forward: large enough to be fast, small enough for any memory.
# On a CPU, fewer of images: activations of a convolution that leave the cache take twice as long.
_NUMBERS, _FEWEST_ROWS = 2**19, 32


class Evaluator:
    """Evaluates a learner on the tasks of a world; training's random streams stay untouched.

    Args:
        transform: Makes floats of stored observations, without augmentation.
        episodes: Per evaluation of an environment; 0: none.
        rows: Maximum number of held-out rows per task, always the same ones, unless `whole`.
        seed: Seeds the model's random draws in evaluation, and the sample of rows.
        folder: Where videos go.
        draw: Called with model and step at every evaluation, to draw what the model does.
        show: Called with the amount done, the total, and what is counted.
    """

    def __init__(
        self,
        world: Any,
        learner: Learner,
        *,
        transform: Any,
        episodes: int,
        rows: int | None = None,
        seed: int,
        folder: Path | None = None,
        draw: Callable[[nn.Module, int], None] | None = None,
        show: Callable[[int, int, str], None] = lambda *_: None,
    ):
        self.world, self.learner, self.transform = world, learner, transform
        self.episodes, self.seed, self.folder, self.draw = episodes, seed, folder, draw
        self.rows, self.show = rows, show
        self._samples: dict[tuple[int, bool], Tensor] = {}
        self._said_cut = False
        self._done = self._total = 0  # Rows or episodes of the current evaluation.

    @property
    def off(self) -> bool:
        """Whether there is no evaluation at all (`eval_episodes=0`): all metrics are empty."""
        return not self.world.on_data and self.episodes == 0

    def __call__(
        self, tasks: Sequence[int], *, step: int, validation: bool = False, whole: bool = False
    ) -> list[dict[str, float]]:
        """The metrics of each task; empty ones for a model that can predict nothing.

        Args:
            validation: Use the rows held out of the training data instead of the test data.
            whole: Use all rows, whatever `rows` says.
        """
        counts = [self._count(task, validation=validation, whole=whole) for task in tasks]
        self._done, self._total = 0, sum(counts)
        with self.learner.evaluating(), forked_randomness(self.seed + step):
            if self.draw is not None:
                self.draw(self.learner.agent, step)
            scores = []
            for task, count in zip(tasks, counts, strict=True):
                scores.append(self._task(task, step, validation=validation, whole=whole))
                self._done += count
            self._show(0)
            return scores

    def _count(self, number: int, *, validation: bool, whole: bool) -> int:
        if not self.world.on_data:
            return self.episodes
        return len(self._index(number, validation=validation, whole=whole))

    def _index(self, number: int, *, validation: bool, whole: bool) -> Tensor:
        """Indices of a task's evaluated rows, int64, in the data's order."""
        task = self.world.tasks[number]
        index: Tensor = task.validation if validation else task.test
        if whole or self.rows is None or self.rows >= len(index):
            return index
        # By seed and task alone: the same at every evaluation, and after a resumption.
        if (sample := self._samples.get((number, validation))) is None:
            seed = int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0])
            generator = torch.Generator().manual_seed(seed)
            chosen = torch.randperm(len(index), generator=generator)[: self.rows]
            sample = self._samples[number, validation] = index[chosen.sort().values]
        return sample

    def _show(self, done: int, what: str = "rows") -> None:
        self.show(self._done + done, self._total, what)

    def _task(self, number: int, step: int, *, validation: bool, whole: bool) -> dict[str, float]:
        task = self.world.tasks[number]
        if self.world.on_data:
            table = self.world.train if validation else self.world.test
            index = self._index(number, validation=validation, whole=whole)
            return self._data(table, index, number)
        if self.episodes == 0:
            return {}
        actor, finals = Actor(self.learner, self.transform.observe), Finals()
        returns, lengths = task.evaluate(
            lambda obs, began, info: actor(obs, began, info)[0],
            episodes=self.episodes,
            folder=self.folder,
            step=step,
            show=lambda ended, steps: self._show(ended, f"episodes ({steps:,} steps)"),
            finals=finals,
        )
        if task.cut and not self._said_cut:
            self._said_cut = True
            warn_caller(
                f"{task.cut} of {len(returns)} episodes of evaluation at step {step} did not end, and "
                f"were cut (truncated) after {max(lengths):,} steps: their return is that so far. Later "
                "evaluations do the same. eval_limit= says where to cut, time_limit= ends episodes of "
                "training too."
            )
        found = {m.name: m.function(returns, lengths) for m in metrics_of("episodes")}
        return {**found, **finals.take()}

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
            values = {m.name: m.function(output, label) for m in metrics_of("values")}
            return {**values, "loss": values["mse"]}
        chosen = output if output.dim() == 1 else output.argmax(-1)
        scores = {m.name: m.function(chosen, label) for m in metrics_of("classes")}
        if output.dim() == 1:  # A model that acts: its choice is all there is to score.
            return scores
        if told:
            classes = world.tasks[task].classes
            known = held.get("told", output)
            scores |= {m.name: m.function(known, label, classes) for m in metrics_of("told")}
            if world.scenario != "task":  # Training's loss is over all classes then, too.
                del scores["task_il_loss"]
        return scores | {m.name: m.function(output, label) for m in metrics_of("logits")}

    def _generated(self, table: Table, index: Tensor, task: int) -> dict[str, float]:
        """Of a model that generates `loss(batch)`, if it has such a method."""
        can = self.learner.traits
        loss = can.loss if can.generates else None
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
        at_once = self._rows_at_once()
        for number, rows in enumerate(index.split(at_once)):
            self._show(number * at_once)
            fields: dict[str, Any] = upload(table.gather(rows), device)
            if self.world.alter is not None:
                fields["obs"] = self.world.alter(fields["obs"], task)
            yield self.transform(fields)

    def _rows_at_once(self) -> int:
        if self.learner.device.type != "cpu":
            return _ROWS
        numbers = max(1, sum(math.prod(part.shape) for part in leaves(self.world.spec.obs)))
        return min(_ROWS, max(_FEWEST_ROWS, _NUMBERS // numbers))

    def _predict(self, obs: Tensor, task: int | None) -> Tensor | None:
        output = self.learner.predict(obs, task)
        if output is None and (act := self.learner.traits.act) is not None:
            action = act(obs, info=Info()) if needs_info(act) else act(obs)
            output = action[0] if isinstance(action, tuple) else action
        return output

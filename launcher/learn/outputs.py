"""What a model answers for held-out rows, and what is measured of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...agents.continual.context import HIDDEN
from ...envs.held_out import HeldOut
from ...replay import Spec
from ...replay.ranks import ranks
from ...replay.transfer import download
from ...replay.tree import map_tree
from ..metrics import metrics_of
from .learner import Learner
from .pixel_scores import PixelScores
from .predicting import predicted


@dataclass(frozen=True)
class Outputs:
    """A model's answers for the held-out rows of one task, on the host.

    Attributes:
        task: The task's number, from 0; None: not known.
        index: int64 `[N]`, the rows' numbers in their table.
        output: Logits or values, float `[N, *action.shape]`; from an `act` without logits, the chosen
            classes, int64 `[N]`.
        label: The targets as batches hold them; values in the precision of their source.
        told: The same as `output` from a model that knew the task; None: knowing it changes nothing.
        classes: int64 `[k]`, the outputs that the task's labels use; None where knowing the task does not
            narrow them down.
    """

    task: int | None
    index: Tensor
    output: Tensor
    label: Tensor
    told: Tensor | None = None
    classes: Tensor | None = None

    @property
    def chosen(self) -> Tensor:
        """The predicted classes, int64 `[N, ...]`."""
        return self.output if self.output.dim() == 1 else self.output.argmax(1)

    def as_scored(self, *, told: bool) -> Tensor:
        """The outputs that the scenario scores.

        Args:
            told: Whether the model knows the task; the outputs of other tasks' classes are then -inf.
        """
        if not told or self.classes is None or self.output.dim() == 1:
            return self.output
        output = self.output if self.told is None else self.told
        others = torch.ones(output.shape[1], dtype=torch.bool)
        others[self.classes] = False
        shape = (1, -1, *[1] * (output.dim() - 2))
        return output.masked_fill(others.view(shape), -torch.inf)


def outputs_of(learner: Learner, rows: HeldOut) -> Outputs | None:
    """What a model answers for held-out rows, in their order; None if it makes no predictions.

    Call it within `learner.evaluating()`. On several devices each predicts some of the batches, as a single
    one would, so that the answers are the same to the bit.
    """
    place, sizes = ranks(), rows.sizes
    divided = place.several and len(sizes) >= place.world
    aware = rows.classes is not None and learner.task_aware
    count = sum(sizes[place.rank :: place.world]) if divided else len(rows)
    outputs, outputs_told, labels = _Rows(count), _Rows(count), _Rows(count)
    for fields in rows.batches(place.rank, place.world) if divided else rows:
        obs = fields["obs"]
        # Class-IL withholds the task, so a model that uses it predicts a second time, with it.
        output = predicted(learner, obs, None if aware else rows.task)
        if output is None:
            return None
        outputs.add(output)
        labels.add(fields["label"])
        if aware:
            outputs_told.add(predicted(learner, obs, rows.task))
    parts = {"output": outputs, "label": labels, "told": outputs_told}
    # Metrics are computed on the host, in float64: not every device has it.
    held = download({name: part.filled for name, part in parts.items() if part.filled is not None})
    if divided:
        held = _merged(place.objects(held, "predictions"), sizes)
    held = map_tree(torch.from_numpy, held)
    label = held["label"] if (exact := rows.exact) is None else exact
    return Outputs(rows.task, rows.index, held["output"], label, held.get("told"), rows.classes)


class _Rows:
    """Rows of batches, copied into one tensor as they come.

    Kept one by one, the small tensors between the large ones of each batch would hold on to the memory of
    all.
    """

    def __init__(self, count: int):
        self._count, self._end = count, 0
        self._rows: Tensor | None = None

    def add(self, part: Any) -> None:
        if self._rows is None:
            self._rows = part.new_empty((self._count, *part.shape[1:]))
        self._rows[self._end : self._end + len(part)] = part
        self._end += len(part)

    @property
    def filled(self) -> Tensor | None:
        return None if self._rows is None else self._rows[: self._end]


def _merged(each: list[Any], sizes: list[int]) -> Any:
    """The arrays of all ranks, leaf by leaf, whose batches took turns among the ranks."""
    if isinstance(each[0], Mapping):
        return {name: _merged([one[name] for one in each], sizes) for name in each[0]}
    world = len(each)
    ends = [np.cumsum(sizes[rank::world])[:-1] for rank in range(world)]
    batches = [np.split(one, at) for one, at in zip(each, ends, strict=True)]
    return np.concatenate([batches[k % world][k // world] for k in range(len(sizes))])


def parts_of(learner: Learner, rows: HeldOut) -> Iterator[Outputs]:
    """What a model answers for held-out rows, a batch at a time; as `outputs_of`, for many large outputs."""
    first = 0
    for fields in rows:
        output = predicted(learner, fields["obs"], rows.task)
        if output is None:
            return
        index = rows.index[first : (first := first + len(output))]
        yield Outputs(rows.task, index, output.cpu(), fields["label"].cpu())


def measure(
    found: Outputs,
    spec: Spec,
    *,
    told: bool,
    loss: Callable[[Tensor, Tensor], float] | None = None,
) -> dict[str, float]:
    """The built-in metrics of a model's answers, by name.

    Args:
        told: Whether the scenario lets the model know the task.
        loss: What `loss=` names (`Learner.held_out_loss`), of all rows at once; None: the usual loss.
    """
    output, label = found.output, found.label
    if not spec.discrete:
        values = {m.name: m.function(output, label) for m in metrics_of("values")}
        return {**values, "loss": values["mse"] if loss is None else loss(output, label)}
    if spec.action.kind == "pixels":
        scored = PixelScores(spec.action, loss)
        scored.add(output, label)
        return scored.metrics()
    if spec.action.kind == "labels":
        several = {m.name: m.function(output, label) for m in metrics_of("labels")}
        return several if loss is None else {**several, "loss": loss(output, label)}
    scores = {m.name: m.function(found.chosen, label) for m in metrics_of("classes")}
    if output.dim() == 1:  # From `act`: choices without logits, which have no loss.
        return scores
    if found.classes is not None:
        known = output if found.told is None else found.told
        scores |= {m.name: m.function(known, label, found.classes) for m in metrics_of("told")}
        if not told:  # Training's loss is over all classes: this one would not compare.
            del scores["task_il_loss"]
        elif loss is not None:
            others = torch.ones(known.shape[1], dtype=torch.bool)
            others[found.classes] = False
            scores["task_il_loss"] = loss(known.masked_fill(others, HIDDEN), label)
    scores |= {m.name: m.function(output, label) for m in metrics_of("logits")}
    return scores if loss is None else {**scores, "loss": loss(output, label)}

"""Learning without forgetting."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...replay import Batch, Replay
from .context import LOGITS, VALUES, Context
from .importance import Weights, checked
from .strategy import Strategy

_TEMPERATURE = 2.0


class LwF(Strategy):
    """Learn the new data while preserving the outputs that the model had for it before the task.

    Source: Li & Hoiem, 2016 (arXiv 1606.09282), eq. 2 to 4: with the outputs f* of the model as the
    last task left it, and the temperature T,

        L = loss + importance sum_k H(softmax(f*_k(x) / T), softmax(f_k(x) / T))

    where H is the cross-entropy. k runs over the earlier tasks, each with its own outputs
    (`scenario="task"`); or it is one softmax, over the classes of all earlier tasks (`class`) or over all
    outputs (`domain`).

    In environments x are the new task's observations. f are either the logits of a policy, in one softmax,
    or values (Q-values, actions), with a squared distance (Rusu et al., 2016, arXiv 1511.06295, eq. 2):

        L = loss + importance mean over x of sum_k (f_k(x) - f*_k(x))^2

    Args:
        importance: Weight of the distillation, a float; 1 in the paper. Code that scales it with the square
            of the temperature (Hinton et al., 2015, arXiv 1503.02531, section 2) corresponds to T^2.
        temperature: Float; above 1, small probabilities count for more; 2 in the paper. Not used for
            values.
    """

    needs_borders = True
    needs_new_classes = True
    needs_classes = True
    needs_forward = True
    recalls = True

    def __init__(self, importance: float = 1.0, temperature: float = _TEMPERATURE):
        self.importance = checked("lwf.importance", importance)
        self.temperature = checked("lwf.temperature", temperature, low=1e-3)
        self.teacher: Weights = {}

    def misfit(self, context: Context) -> str | None:
        if context.outputs == VALUES and self.temperature != _TEMPERATURE:
            return (
                "temperature= softens a softmax, but this agent's outputs are values. Leave it out"
            )
        return None

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        if not self.importance or not self.teacher:
            return loss
        logits = self.context.logits(batch.obs)
        answers = self.context.recall(self.teacher, batch.obs)
        if self.context.outputs == VALUES:
            distance = (logits - answers).flatten(1).square().sum(1).mean()
            return loss + self.importance * distance
        if self.context.outputs == LOGITS:
            return loss + self.importance * distillation(logits, answers, self.temperature)
        for index in self._old():
            kept = distillation(logits[:, index], answers[:, index], self.temperature)
            loss = loss + self.importance * kept
        return loss

    def end_task(self, agent: nn.Module, replay: Replay) -> None:
        self.teacher = self.context.snapshot()

    def _old(self) -> list[Tensor]:
        """Output indices of each softmax to be preserved, int64."""
        context = self.context
        if context.scenario == "domain":
            return context.classes[:1]
        old = context.classes[: context.task]
        return old if context.scenario == "task" else [torch.cat(old)]


def distillation(logits: Tensor, answers: Tensor, temperature: float) -> Tensor:
    """Mean over rows of the cross-entropy between the softened outputs, both `[B, n]`."""
    return F.cross_entropy(logits / temperature, (answers / temperature).softmax(1))

"""Elastic weight consolidation."""

from __future__ import annotations

from collections.abc import Callable
import os
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...replay import Batch, ConfigError, Replay
from .context import Context
from .importance import Weights, copied, mean_over_rows, penalty
from .strategy import Strategy


class EWC(Strategy):
    needs_borders = True
    needs_forward = True

    def __init__(self, importance: float = 100.0, samples: int | None = None):
        self.importance, self.samples = importance, samples
        self.fishers: list[Weights] = []
        self.anchors: list[Weights] = []

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        if not self.importance:
            return loss
        for fisher, anchor in zip(self.fishers, self.anchors, strict=True):
            loss = loss + self.importance * penalty(agent, fisher, anchor)
        return loss

    def end_task(self, agent: nn.Module, replay: Replay) -> None:
        self.fishers.append(fisher(self.context, agent, replay, samples=self.samples))
        self.anchors.append(copied(agent))


KIND = os.environ.get("FISHER", "empirical")


def fisher(context, agent, replay, *, samples=None):
    if KIND == "expected":
        total = None
        for y in range(context.spec.action.n):
            def value(output, batch):
                lp = F.log_softmax(context.masked(output, batch.task), 1)[:, y]
                return lp.detach().exp().sqrt() * lp
            found = mean_over_rows(agent, replay, value, of=torch.square, samples=samples)
            total = found if total is None else {n: total[n] + found[n] for n in found}
        return total

    def log_likelihood(output: Tensor, batch: Batch) -> Tensor:
        output = context.masked(output, batch.task)
        if KIND == "empirical":
            return -F.cross_entropy(output, batch.label, reduction="none")
        if KIND == "argmax":
            return -F.cross_entropy(output, output.argmax(1), reduction="none")
        if KIND == "weighted":
            ce = F.cross_entropy(output, batch.label, reduction="none")
            return (-ce.detach()).exp().sqrt() * -ce
    return mean_over_rows(agent, replay, log_likelihood, of=torch.square, samples=samples)

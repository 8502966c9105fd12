"""Memory aware synapses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...replay import Batch, Replay
from .context import HIDDEN
from .importance import Weights, copied, mean_over_rows, penalty
from .strategy import Strategy


class MAS(Strategy):
    needs_borders = True
    needs_forward = True

    def __init__(self, importance: float = 1.0, samples: int | None = None):
        self.importance, self.samples = importance, samples
        self.omega: Weights = {}
        self.anchor: Weights = {}

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        if not self.importance or not self.omega:
            return loss
        return loss + self.importance * penalty(agent, self.omega, self.anchor)

    def end_task(self, agent: nn.Module, replay: Replay) -> None:
        def squared_length(output: Tensor, batch: Batch) -> Tensor:
            shown = self.context.masked(output, batch.task)
            return shown.where(shown > HIDDEN, 0.0).square().flatten(1).sum(1)

        new = mean_over_rows(agent, replay, squared_length, of=torch.abs, samples=self.samples)
        for name, old in self.omega.items():
            new[name] += old
        self.omega, self.anchor = new, copied(agent)

"""Online elastic weight consolidation."""

from __future__ import annotations

from torch import Tensor, nn

from ...replay import Batch, Replay
from .ewc import fisher
from .importance import Weights, copied, penalty
from .strategy import Strategy


class EWCOnline(Strategy):
    needs_borders = True
    needs_forward = True

    def __init__(self, importance: float = 100.0, gamma: float = 1.0, samples: int | None = None):
        self.importance, self.gamma, self.samples = importance, gamma, samples
        self.fisher: Weights = {}
        self.anchor: Weights = {}

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        if not self.importance or not self.fisher:
            return loss
        return loss + self.importance * penalty(agent, self.fisher, self.anchor)

    def end_task(self, agent: nn.Module, replay: Replay) -> None:
        new = fisher(self.context, agent, replay, samples=self.samples)
        for name, old in self.fisher.items():
            if name in new: new[name] += self.gamma * old
        self.fisher, self.anchor = new, copied(agent)

"""Synaptic intelligence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...replay import Batch, Replay
from .importance import Weights, copied, penalty, trainable
from .strategy import Strategy


class SI(Strategy):
    needs_borders = True

    def __init__(self, importance: float = 1.0, damping: float = 0.1):
        self.importance, self.damping = importance, damping
        self.omega: Weights = {}
        self.anchor: Weights = {}
        self.path: Weights = {}
        self.gradient: Weights = {}
        self.before: Weights = {}

    def begin_task(self, agent: nn.Module, replay: Replay) -> None:
        if not self.anchor:
            self.anchor = copied(agent)
        self.path = {name: torch.zeros_like(weight) for name, weight in self.anchor.items()}

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        if not self.importance or not self.omega:
            return loss
        return loss + self.importance * penalty(agent, self.omega, self.anchor)

    def after_backward(self, agent: nn.Module) -> None:
        self.before = copied(agent)
        self.gradient = {}
        for name, weight in trainable(agent).items():
            if weight.grad is None or name not in self.path: continue
            g = weight.grad.clone()
            if self.importance and self.omega:
                g.addcmul_(self.omega[name], self.before[name]-self.anchor[name], value=-2 * self.importance)
            self.gradient[name] = g.nan_to_num_(0, 0, 0)

    def after_step(self, agent: nn.Module, batch: Batch) -> None:
        weights = trainable(agent)
        for name, g in self.gradient.items():
            self.path[name] += g * (self.before[name] - weights[name].detach())

    def end_task(self, agent: nn.Module, replay: Replay) -> None:
        weights = copied(agent)
        for name, path in self.path.items():
            new = path / ((weights[name] - self.anchor[name]).square() + self.damping)
            self.omega[name] = (self.omega.get(name, 0) + new).clamp(min=0)
        self.anchor = weights

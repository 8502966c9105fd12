"""Synaptic intelligence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...replay import Batch, Replay
from .importance import Weights, checked, copied, fit, penalty, trainable
from .strategy import Strategy


class SI(Strategy):
    """Hold each weight where the last task left it, as firmly as it has lowered earlier losses.

    Source: Zenke et al., 2017 (arXiv 1703.04200), eq. 3 to 5: with the gradient g of the loss without this
    penalty, the weights w* after the last task, and their displacement W over the task,

        L = loss + importance sum_i Omega_i (w_i - w*_i)^2
        omega_i <- omega_i - g_i (w_i - w_i before) at each step
        Omega_i <- max(0, Omega_i + omega_i / (W_i^2 + damping)) after each task

    Omega is never negative, as in the authors' code: a weight's moves may also have raised the loss.

    Args:
        importance: Weight of the penalty, a float from 0; c in the paper.
        damping: Float that bounds the importance of weights that hardly moved; xi in the paper.
    """

    needs_borders = True

    def __init__(self, importance: float = 1.0, damping: float = 0.1):
        self.importance = checked("si.importance", importance)
        self.damping = checked("si.damping", damping, low=1e-12)
        self.anchor: Weights = {}
        self.omega: Weights = {}  # Of the tasks so far: Omega.
        self.path: Weights = {}  # Of this one: omega.
        self._before: Weights = {}
        self._gradient: Weights = {}

    def begin_task(self, agent: nn.Module, replay: Replay) -> None:
        self.anchor = copied(agent) | self.anchor
        self.path = {name: torch.zeros_like(weight) for name, weight in self.anchor.items()}

    def parameters_changed(self, agent: nn.Module) -> None:
        fit(agent, self.omega, self.path)
        fit(agent, self.anchor, now=True)
        self.anchor = copied(agent) | self.anchor
        none = {name: torch.zeros_like(weight) for name, weight in self.anchor.items()}
        self.path = none | self.path

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        if not self._pulls:
            return loss
        return loss + self.importance * penalty(agent, self.omega, self.anchor)

    def after_backward(self, agent: nn.Module) -> None:
        self._before = copied(agent)
        for name, weight in trainable(agent).items():
            if weight.grad is None or name not in self.path:
                continue
            gradient = weight.grad.clone()  # A copy: the gradient may be clipped before the step.
            if self._pulls and name in self.omega:
                moved = self._before[name] - self.anchor[name]
                gradient.addcmul_(self.omega[name], moved, value=-2 * self.importance)
            # precision=16 finds its loss scale by overflowing gradients, which no step follows.
            self._gradient[name] = gradient.nan_to_num_(0, 0, 0)

    def after_step(self, agent: nn.Module, batch: Batch) -> None:
        weights = trainable(agent)
        for name, gradient in self._gradient.items():
            self.path[name].addcmul_(gradient, self._before[name].sub_(weights[name].detach()))
        # Checkpoints are written between steps: there is nothing of a step to save.
        self._before, self._gradient = {}, {}

    def end_task(self, agent: nn.Module, replay: Replay) -> None:
        weights = copied(agent)
        for name, path in self.path.items():
            if name in weights:
                displacement = weights[name] - self.anchor[name]
                omega = path / (displacement.square() + self.damping)
                if self.context.in_environment and not (omega.any() or name in self.omega):
                    continue  # The loss does not depend on it: see `importance.reached`.
                self.omega[name] = (omega + self.omega.get(name, 0)).clamp_(min=0)
        self.anchor |= weights

    @property
    def _pulls(self) -> bool:
        """Whether the penalty is active: its weight is above 0, and a task has ended."""
        return bool(self.importance and self.omega)

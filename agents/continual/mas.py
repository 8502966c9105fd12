"""Memory aware synapses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...replay import Batch, Replay
from .context import HIDDEN
from .importance import Weights, checked, copied, fit, mean_over_rows, penalty, reached
from .strategy import Strategy


class MAS(Strategy):
    """Hold each weight where the last task left it, as firmly as the outputs depend on it.

    Source: Aljundi et al., 2018 (arXiv 1711.09601), eq. 3 to 5: with outputs f and the weights w*
    after the last task,

        L = loss + importance sum_i Omega_i (w_i - w*_i)^2
        Omega_i <- Omega_i + mean over rows x of |d ||f(x)||^2 / d w_i| after each task

    No labels are needed: in environments, f are Q-values, logits or actions, and x the task's transitions
    in the replay. With `scenario="task"`, f are the outputs of the row's own task.

    Args:
        importance: Weight of the penalty, a float; 1 in the paper. The code of Hsu et al., 2018 (arXiv
            1810.12488) uses the mean over the n outputs of a task instead of ||f||^2, and the gradient of
            a batch's mean instead of each row's: its Omega is 1/n of ours, or less where rows pull in
            opposite directions. Its weight c corresponds to c/n here, or less; on Split-MNIST in the
            task-incremental scenario, n = 2.
        samples: Rows of each task that the importance is measured on; None: all.
    """

    needs_borders = True
    needs_forward = True

    def __init__(self, importance: float = 1.0, samples: int | None = None):
        self.importance = checked("mas.importance", importance)
        self.samples = samples if samples is None else int(checked("mas.samples", samples, low=1))
        self.omega: Weights = {}
        self.anchor: Weights = {}

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        if not self.importance or not self.omega:
            return loss
        return loss + self.importance * penalty(agent, self.omega, self.anchor)

    def parameters_changed(self, agent: nn.Module) -> None:
        fit(agent, self.omega, self.anchor)

    def end_task(self, agent: nn.Module, replay: Replay) -> None:
        new = mean_over_rows(agent, replay, self._squared_norm, of=torch.abs, samples=self.samples)
        for name, omega in (reached(new) if self.context.in_environment else new).items():
            old = self.omega.get(name)
            self.omega[name] = omega if old is None else old + omega
        self.anchor |= copied(agent)

    def _squared_norm(self, output: Tensor, batch: Batch) -> Tensor:
        if self.context.in_environment:
            return output.square().flatten(1).sum(1)
        shown = self.context.masked(output, batch.task)
        return shown.where(shown != HIDDEN, 0.0).square().flatten(1).sum(1)

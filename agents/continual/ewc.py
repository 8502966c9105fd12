"""Elastic weight consolidation."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...replay import Batch, Replay
from .context import Context
from .importance import Weights, checked, copied, fit, mean_over_rows, penalty
from .strategy import Strategy


class EWC(Strategy):
    """Hold each weight where each earlier task left it, as firmly as that task depends on it.

    Source: Kirkpatrick et al., 2017 (arXiv 1612.00796), eq. 3 (whose factor 1/2 is in `importance`
    here): with a Fisher information F_t and weights w_t for every earlier task t,

        L = loss + importance sum_t sum_i F_t,i (w_i - w_t,i)^2

    What it holds, and a step's price, grow with the tasks; `ewc_online` has one sum for all of them.

    Args:
        importance: Strength of the penalty; the default is that of Hsu et al., 2018
            (arXiv 1810.12488), for Split-MNIST with the task told.
        samples: Rows of a task that its Fisher information is measured on; None: all.
    """

    needs_borders = True
    needs_forward = True

    def __init__(self, importance: float = 100.0, samples: int | None = None):
        self.importance = checked("ewc.importance", importance)
        self.samples = samples if samples is None else int(checked("ewc.samples", samples, low=1))
        self.fishers: list[Weights] = []
        self.anchors: list[Weights] = []

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        if self.importance:  # 0 is none at all, also where a weight has no gradient otherwise.
            for fisher, anchor in zip(self.fishers, self.anchors, strict=True):
                loss = loss + self.importance * penalty(agent, fisher, anchor)
        return loss

    def parameters_changed(self, agent: nn.Module) -> None:
        fit(agent, *self.fishers, *self.anchors)

    def end_task(self, agent: nn.Module, replay: Replay) -> None:
        self.fishers.append(fisher_information(agent, replay, self.context, samples=self.samples))
        self.anchors.append(copied(agent))


def fisher_information(
    agent: nn.Module, replay: Replay, context: Context, *, samples: int | None
) -> Weights:
    """Diagonal of the empirical Fisher information of the current task:

        F_i = mean over rows (x, y) of (d log p(y | x) / d w_i)^2

    with y the label of the data. p is the softmax over the outputs that compete in this scenario;
    for values the Gaussian of the targets' deviation (1 where it is not known).
    """
    return mean_over_rows(agent, replay, _log_likelihood(context), of=torch.square, samples=samples)


def _log_likelihood(context: Context) -> Callable[[Tensor, Batch], Tensor]:
    space = context.spec.action
    if space.discrete:
        return lambda output, batch: (
            -F.cross_entropy(context.masked(output, batch.task), batch.label, reduction="none")
        )
    stddev = torch.tensor(1.0) if space.stddev is None else space.stddev
    stddev = torch.where(stddev > 0, stddev, 1.0).to(context.device)
    return lambda output, batch: -((output - batch.label) / stddev).square().flatten(1).sum(1) / 2

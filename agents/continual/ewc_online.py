"""Online elastic weight consolidation."""

from __future__ import annotations

from torch import Tensor, nn

from ...replay import Batch, Replay
from .context import Context
from .ewc import WEIGHTED, checked_kind, fisher_information, misfit
from .importance import Weights, checked, copied, fit, penalty
from .strategy import Strategy


class EWCOnline(Strategy):
    """Hold each weight where the last task left it, as firmly as all tasks together depend on it.

    Source: Schwarz et al., 2018 (arXiv 1805.06370), eq. 9 (whose factor 1/2 is part of `importance` here):
    with the weights w* after the last task and its Fisher information F_t,

        L = loss + importance sum_i F_i (w_i - w*_i)^2,    F <- gamma F + F_t after task t

    Args:
        importance: Weight of the penalty, a float from 0; the default is that of Hsu et al., 2018
            (arXiv 1810.12488), for Split-MNIST in the task-incremental scenario.
        gamma: Share of the earlier tasks' information that is kept, a float in [0, 1].
        samples: Rows of each task that its Fisher information is measured on; None: all.
        fisher: `labels`, or `weighted` by the labels' probability: see `ewc.fisher_information`.
    """

    needs_borders = True
    needs_forward = True

    def __init__(
        self,
        importance: float = 400.0,
        gamma: float = 1.0,
        samples: int | None = None,
        fisher: str = "labels",
    ):
        self.importance = checked("ewc_online.importance", importance)
        self.gamma = checked("ewc_online.gamma", gamma, high=1)
        self.samples = samples
        if samples is not None:
            self.samples = int(checked("ewc_online.samples", samples, low=1))
        self.kind = checked_kind("ewc_online.fisher", fisher)
        self.needs_classes = self.kind == WEIGHTED
        self.fisher: Weights = {}
        self.anchor: Weights = {}

    def misfit(self, context: Context) -> str | None:
        return misfit(self.kind)

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        if not self.importance or not self.fisher:
            return loss
        return loss + self.importance * penalty(agent, self.fisher, self.anchor)

    def parameters_changed(self, agent: nn.Module) -> None:
        fit(agent, self.fisher, self.anchor)

    def end_task(self, agent: nn.Module, replay: Replay) -> None:
        new = fisher_information(
            agent, replay, self.context, samples=self.samples, weighted=self.kind == WEIGHTED
        )
        for name, fisher in new.items():
            old = self.fisher.get(name)
            self.fisher[name] = fisher if old is None else self.gamma * old + fisher
        self.anchor |= copied(agent)

"""Elastic weight consolidation."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...replay import Batch, ConfigError, Replay, Space
from .context import LOGITS, Context
from .importance import Weights, checked, copied, fit, mean_over_rows, penalty, reached
from .strategy import Strategy

LABELS, WEIGHTED = "labels", "weighted"


class EWC(Strategy):
    """Hold each weight where each earlier task left it, as firmly as that task depends on it.

    Source: Kirkpatrick et al., 2017 (arXiv 1612.00796), eq. 3 (whose factor 1/2 is part of `importance`
    here): with a Fisher information F_t and weights w_t for every earlier task t,

        L = loss + importance sum_t sum_i F_t,i (w_i - w_t,i)^2

    Memory and time per step grow with the number of tasks; `ewc_online` keeps one sum for all of them.

    Args:
        importance: Weight of the penalty, a float from 0; the default is that of Hsu et al., 2018
            (arXiv 1810.12488), for Split-MNIST in the task-incremental scenario.
        samples: Rows of each task that its Fisher information is measured on; None: all.
        fisher: `labels`, or `weighted` by the labels' probability: see `fisher_information`.
    """

    needs_borders = True
    needs_forward = True

    def __init__(
        self, importance: float = 100.0, samples: int | None = None, fisher: str = "labels"
    ):
        self.importance = checked("ewc.importance", importance)
        self.kind = checked_kind("ewc.fisher", fisher)
        self.needs_classes = self.kind == WEIGHTED
        self.samples = samples if samples is None else int(checked("ewc.samples", samples, low=1))
        self.fishers: list[Weights] = []
        self.anchors: list[Weights] = []

    def misfit(self, context: Context) -> str | None:
        return misfit(self.kind)

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        if self.importance:  # 0 is none at all, also where a weight has no gradient otherwise.
            for fisher, anchor in zip(self.fishers, self.anchors, strict=True):
                loss = loss + self.importance * penalty(agent, fisher, anchor)
        return loss

    def parameters_changed(self, agent: nn.Module) -> None:
        fit(agent, *self.fishers, *self.anchors)

    def end_task(self, agent: nn.Module, replay: Replay) -> None:
        new = fisher_information(
            agent, replay, self.context, samples=self.samples, weighted=self.kind == WEIGHTED
        )
        self.fishers.append(new)
        self.anchors.append(copied(agent))


def checked_kind(name: str, kind: str) -> str:
    """The kind of Fisher information, checked.

    Raises:
        ConfigError: If the kind is unknown.
    """
    if kind not in (LABELS, WEIGHTED):
        raise ConfigError(f"{name} is {kind!r}; it must be `{LABELS}` or `{WEIGHTED}`.")
    return kind


def misfit(kind: str) -> str | None:
    """Why a kind of Fisher information is not available in environments; None if it is available."""
    if kind == WEIGHTED:
        return f"fisher={WEIGHTED} weights rows by the probability of their labels. Leave it out"
    return None


def fisher_information(
    agent: nn.Module,
    replay: Replay,
    context: Context,
    *,
    samples: int | None,
    weighted: bool = False,
) -> Weights:
    """Diagonal of the empirical Fisher information of the current task:

        F_i = mean over rows (x, y) of (d log p(y | x) / d w_i)^2

    where y is the data's label. p is the softmax over the outputs that compete in this scenario; in
    regression, a Gaussian with the targets' standard deviation (1 if unknown). With `weighted`, it is

        F_i = mean over rows (x, y) of p(y | x) (d log p(y | x) / d w_i)^2

    which is the data label's term in the expectation over the model's own labels, as in the code of Buzzega
    et al., 2020 (arXiv 2004.07211). Misclassified rows hardly count.

    Environments have no labels, and the expectation over the model's own answers is exact. For Q-values or
    actions f(x), read as means of Gaussians with variance 1, and for the logits of a policy pi,

        F_i = mean over transitions sum_k (d f_k(x) / d w_i)^2
        F_i = mean over transitions sum_a pi(a | x) (d log pi(a | x) / d w_i)^2

    over the task's transitions in the replay (Kirkpatrick et al., 2017, whose agents are DQNs too;
    Wolczyk et al., 2021, arXiv 2105.10919, appendix B, for both forms). If the critic is a separate network,
    only the policy is measured and held in place: as they report, holding the critic as well hurts.
    """
    if context.in_environment:
        answers = _log_policy if context.outputs == LOGITS else _values
        return reached(mean_over_rows(agent, replay, answers, of=torch.square, samples=samples))
    value = log_likelihood = _log_likelihood(context)
    if weighted:

        def value(output: Tensor, batch: Batch) -> Tensor:
            logarithm = log_likelihood(output, batch)
            return logarithm * (logarithm.detach() / 2).exp()  # It is squared.

    return mean_over_rows(agent, replay, value, of=torch.square, samples=samples)


def _values(output: Tensor, batch: Batch) -> Tensor:
    return output.flatten(1)


def _log_policy(output: Tensor, batch: Batch) -> Tensor:
    """Log-probability of each choice, `[B, n]`, weighted so that its square is weighted by pi."""
    logarithm = output.log_softmax(1)
    return logarithm * (logarithm.detach() / 2).exp()


def _log_likelihood_of_pixels(output: Tensor, batch: Batch) -> Tensor:
    """The mean over an image's pixels, `[B]`: as in the loss, their number must not matter."""
    label = batch.label
    loss = F.cross_entropy(output, label, ignore_index=Space.ignored, reduction="none")  # [B, H, W]
    return -loss.mean((1, 2))


def _log_likelihood(context: Context) -> Callable[[Tensor, Batch], Tensor]:
    space = context.spec.action
    if space.kind == "labels":
        return lambda output, batch: (
            -F.binary_cross_entropy_with_logits(output, batch.label, reduction="none").sum(1)
        )
    if space.kind == "pixels":
        return _log_likelihood_of_pixels
    if space.discrete:
        return lambda output, batch: (
            -F.cross_entropy(context.masked(output, batch.task), batch.label, reduction="none")
        )
    stddev = torch.tensor(1.0) if space.stddev is None else space.stddev
    stddev = torch.where(stddev > 0, stddev, 1.0).to(context.device)
    return lambda output, batch: -((output - batch.label) / stddev).square().flatten(1).sum(1) / 2

"""CWR*: copy weights of the output layer, reinitialised for each task."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...replay import Batch, ConfigError, Replay
from ..calling import call
from .context import HIDDEN
from .importance import checked
from .layers import names_of, output_layer, rest_normalisation
from .strategy import Strategy


class CWR(Strategy):
    """Learn the output layer from scratch in each task, and merge it into a consolidated one.

    Source: Lomonaco, Maltoni & Pellegrini, 2020 (arXiv 1907.03799), algorithm 1, CWR*; mean-shift
    from CWR+: Maltoni & Lomonaco, 2019 (arXiv 1806.08568). The first task trains everything, later tasks
    only the output layer. Its weights tw start from the consolidated cw for the task's classes, and from
    0 for all others. After the task, for each of its classes j

        cw_j = (w_j cw_j + tw_j - avg(tw)) / (w_j + 1),    w_j = sqrt(past_j / cur_j)

    where avg(tw) is a single number, the mean of all weights of the task's classes, and past_j and cur_j
    count the rows of class j in earlier tasks and in this one. The paper has no biases; ours are merged
    likewise, with a mean of their own. The model is tested with cw, among the classes seen so far.

    Plain SGD trains the output layer, as in the paper, whatever optimiser trains the rest. Rows of
    different tasks are compared, so they must be on the same scale, and an adaptive step moves every weight
    equally far, whatever its gradient. The mean-shift would then remove most of what a short task learnt,
    and the first task, whose features grew with its rows, would win everywhere.

    Args:
        lr: Learning rate of that SGD, a float; unused if the run's own optimiser is SGD, which then trains
            everything. Default: plain SGD on Split-MNIST in Buzzega et al., 2020 (arXiv 2004.07211).
    """

    owns = frozenset({"weights", "output"})
    no_environments = "it keeps output weights of each class"
    needs_borders = needs_classes = needs_forward = needs_optimizer = True

    def __init__(self, lr: float = 0.03):
        self.lr = checked("cwr.lr", lr)
        self.consolidated: dict[str, Tensor] = {}  # cw and its biases, by the agent's names.
        self.past = self.current = torch.zeros(0)  # Rows of each class, `[n]`.
        self.in_task = False

    def setup(self, agent: nn.Module) -> None:
        self.layer = output_layer(agent, self.context, "cwr")
        names, weights = names_of(agent, self.layer), dict(agent.named_parameters())
        self.consolidated = {n: torch.zeros_like(weights[n].detach()) for n in names.values()}
        self.past = torch.zeros(self.context.spec.action.n, device=self.context.device)
        self.current = torch.zeros_like(self.past)

    def parameters_changed(self, agent: nn.Module) -> None:
        """Continue with the output layer that the model has now, which may be a new one."""
        weights, layer = dict(agent.named_parameters()), output_layer(agent, self.context, "cwr")
        kept = {name.rpartition(".")[2]: cw for name, cw in self.consolidated.items()}
        names = names_of(agent, layer)
        self.consolidated = {}
        for own, name in names.items():
            weight = weights[name].detach()
            self.consolidated[name] = cw = kept.get(own, torch.zeros_like(weight))
            if cw.shape != weight.shape:
                raise ConfigError(
                    "strategy=cwr keeps the output layer of earlier tasks, of shape "
                    f"{list(cw.shape)}, but `{name}` now has shape {list(weight.shape)}. Keep its "
                    "shape."
                )
        if layer is not self.layer and self.in_task and self.context.task:
            self.load(agent, self.current > 0)
        self.layer = layer

    def begin_task(self, agent: nn.Module, replay: Replay) -> None:
        self.in_task = True
        self.current = torch.zeros_like(self.past)
        for batch in replay.once():
            self.current += batch.label.bincount(minlength=len(self.past))
        if self.context.task == 0:
            return
        rest_normalisation(agent)
        self.load(agent, self.current > 0)

    def before_batch(self, agent: nn.Module, batch: Batch) -> Batch:
        if self.context.task:
            rest_normalisation(agent)  # A model may call self.train() in each step.
        return batch

    def after_backward(self, agent: nn.Module) -> None:
        # Without a gradient an optimiser skips a weight, including weight decay and momentum.
        if self.context.task:
            for name, parameter in agent.named_parameters():
                if name not in self.consolidated:
                    parameter.grad = None
        if not isinstance(self.context.optimizer, torch.optim.SGD):
            self.descend(agent)

    def descend(self, agent: nn.Module) -> None:
        """Step the output layer with plain SGD, and hide its gradient from the run's optimiser."""
        if self.context.clip_grad is not None:
            nn.utils.clip_grad_norm_(agent.parameters(), self.context.clip_grad)
        for name, parameter in agent.named_parameters():
            if name in self.consolidated and parameter.grad is not None:
                # precision=16 finds its scale by overflowing gradients, which must not be applied.
                parameter.data.sub_(parameter.grad.nan_to_num(0, 0, 0), alpha=self.lr)
                parameter.grad = None

    def end_task(self, agent: nn.Module, replay: Replay) -> None:
        self.consolidated = self.merged(agent)
        self.past = self.past + self.current
        self.in_task = False
        self.load(agent, self.past > 0)

    def predict(self, agent: nn.Module, obs: Tensor, task: int | None) -> Tensor:
        """Outputs `[B, n]` of the consolidated layer; during a task, as if the task ended now."""
        weights = self.merged(agent) if self.in_task else self.consolidated
        seen = self.past + self.current * self.in_task > 0
        if not seen.any():
            return call(agent, obs)
        return self.context.recall(weights, obs, self.context.task).masked_fill(~seen, HIDDEN)

    def merged(self, agent: nn.Module) -> dict[str, Tensor]:
        """The consolidated weights with those of the current task merged into them."""
        temporary = dict(agent.named_parameters())
        ours = self.current > 0
        # For classes outside the task any number will do: `consolidate` ignores it.
        past_share = (self.past / self.current.clamp(min=1)).sqrt()
        return {
            name: consolidate(cw, temporary[name].detach(), past_share, ours)
            for name, cw in self.consolidated.items()
        }

    def load(self, agent: nn.Module, classes: Tensor) -> None:
        """Load the consolidated weights of `classes`, bool `[n]`, into the output layer, and 0 elsewhere."""
        weights = dict(agent.named_parameters())
        for name, cw in self.consolidated.items():
            weights[name].data.copy_(torch.where(like(classes, cw), cw, 0))
            if self.context.optimizer is not None:
                # Its momentum belongs to the previous weights.
                self.context.optimizer.state.pop(weights[name], None)


def consolidate(cw: Tensor, tw: Tensor, past_share: Tensor, ours: Tensor) -> Tensor:
    """Consolidated weights after merging those of a task.

    Args:
        cw, tw: Consolidated and temporary weights, float `[n, D]`; biases `[n]`.
        past_share: sqrt(past_j / cur_j), float32 `[n]`.
        ours: Bool `[n]`, the classes of the task; other classes keep their weights.
    """
    shifted = tw - tw[ours].mean()
    # Rows are counted in float32, whatever the weights are.
    share = like(past_share, cw).to(cw.dtype)
    return torch.where(like(ours, cw), (share * cw + shifted) / (share + 1), cw)


def like(of_class: Tensor, weights: Tensor) -> Tensor:
    """One number per class, `[n]`, shaped to broadcast over the rows of weights `[n, D]` or `[n]`."""
    return of_class.view(-1, *[1] * (weights.dim() - 1))

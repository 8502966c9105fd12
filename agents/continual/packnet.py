"""PackNet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...replay import Batch, ConfigError, Replay
from .layers import (
    computed_weights,
    names_of,
    output_layer,
    put_together,
    rest_normalisation,
    running_statistics,
)
from .strategy import Strategy
from .substitution import tensors_of

FREE = 2**15 - 1  # Owner of a weight that no task has kept: later than every task.


class PackNet(Strategy):
    """Give each task weights of its own by pruning: the weights that a task keeps never change again.

    Source: Mallya & Lazebnik, 2018 (arXiv 1711.05769). A task trains the free weights, with those of
    earlier tasks in place. Then the free weights of least magnitude in each layer are set to 0, which
    frees them for the next task; the remaining ones are trained further and belong to the task. A task is
    tested with only the weights of the tasks up to it. Biases and normalisation are fixed after the first
    task.

    In the paper each data set has an output layer of its own. Correspondingly, a task here owns the rows
    and biases of the output layer for its classes; they are not pruned, and the model sees no other outputs
    while it learns the task. In `scenario=domain`, where tasks share their outputs, the output layer is
    treated like any other.

    Weights are parameters with at least two dimensions.

    Args:
        keep: Share of the free weights that a task keeps, a float in (0, 1]; None: so that all tasks get
            equally many. The paper frees 50 or 75 % of them each time: .5 or .25.
        retrain_epochs: Passes over the task's data after pruning, with the run's own optimiser.
    """

    owns = frozenset({"gradient", "weights", "output"})
    no_environments = "it gives each task weights of its own, and `act` does not know the task"
    needs_all_tasks = True
    needs_borders = needs_classes = needs_forward = needs_optimizer = True
    task_aware = recalls = True

    def __init__(self, keep: float | None = None, retrain_epochs: int = 1):
        if keep is not None and not 0 < keep <= 1:
            raise ConfigError(f"strategy.packnet.keep={keep} must be a share in (0, 1].")
        self.keep, self.retrain_epochs = keep, retrain_epochs
        self.owner: dict[str, Tensor] = {}  # The task of each weight, int16.
        self.outputs: list[str] = []  # Names of weights exempt from pruning.
        # What this task trains (1 or 0), and the values that it must not change (0 elsewhere); None: unknown.
        self.mine: dict[str, Tensor] = {}
        self.fixed: dict[str, Tensor] | None = None

    def setup(self, agent: nn.Module) -> None:
        if computed := computed_weights(agent):
            raise ConfigError(
                f"strategy=packnet needs plain weights to prune, but those of `{computed[0]}` are "
                "parametrized (weight_norm, spectral_norm, ...). Remove the parametrization, or choose "
                "another strategy."
            )
        trained = {name: p for name, p in agent.named_parameters() if p.requires_grad}
        self.owner = {
            name: torch.zeros_like(p, dtype=torch.int16)
            for name, p in trained.items()
            if p.dim() > 1
        }
        if self.context.scenario == "domain":
            return
        self.context.hide_others()
        names = names_of(agent, output_layer(agent, self.context, "packnet"))
        self.outputs = [name for name in names.values() if name in trained]
        for name in self.outputs:
            self.owner[name] = torch.zeros_like(trained[name], dtype=torch.int16)
            for task, own in enumerate(self.context.classes):
                self.owner[name][own] = task

    def begin_task(self, agent: nn.Module, replay: Replay) -> None:
        task = self.context.task
        for owner in self.owner.values():
            owner[owner == FREE] = task
        if task:
            rest_normalisation(agent)
        self.fix(agent)

    def parameters_changed(self, agent: nn.Module) -> None:
        """Assign new parameters to the current task."""
        task = self.context.task
        if task == 0:
            self.setup(agent)
            self.fix(agent)
            return
        tensors = tensors_of(agent)
        for name, owner in self.owner.items():
            if name not in tensors or tensors[name].shape != owner.shape:
                raise ConfigError(
                    f"strategy=packnet keeps weights of earlier tasks in `{name}`, which "
                    f"{'has another shape now' if name in tensors else 'is gone'}. Add layers beside it."
                )
        if self.fixed is not None:
            self.fixed = {n: t for n, t in self.fixed.items() if n in tensors}
            self.after_step(agent)  # A replaced parameter gets the earlier tasks' weights back.
        new = [
            name
            for name, parameter in agent.named_parameters()
            if parameter.requires_grad and name not in {**self.owner, **(self.fixed or {})}
        ]
        for name in new:
            self.owner[name] = torch.full_like(tensors[name], task, dtype=torch.int16)
        if self.context.scenario != "domain":
            layer = output_layer(agent, self.context, "packnet")
            self.outputs += [name for name in names_of(agent, layer).values() if name in new]
        self.fix(agent)

    def before_batch(self, agent: nn.Module, batch: Batch) -> Batch:
        if self.context.task:
            rest_normalisation(agent)  # A model may call self.train() in each step.
        return batch

    def after_backward(self, agent: nn.Module) -> None:
        if self.fixed is None:  # Resumed.
            self.fix(agent)
        for name, parameter in agent.named_parameters():
            if parameter.grad is None:
                continue
            if name in self.mine:
                parameter.grad.mul_(self.mine[name])
            elif self.context.task:
                parameter.grad = None

    def after_step(self, agent: nn.Module, batch: Batch | None = None) -> None:
        # Momentum, weight decay and adaptive steps also move weights without a gradient.
        if self.fixed is None:  # Resumed, while gradients are accumulated.
            self.fix(agent)
        assert self.fixed is not None
        tensors = tensors_of(agent)
        for name, fixed in self.fixed.items():
            tensor = tensors[name].detach()
            if name in self.mine:  # Exact, and 25 times as fast as torch.where.
                torch.addcmul(fixed, tensor, self.mine[name], out=tensor)
            else:
                tensor.copy_(fixed)

    def end_task(self, agent: nn.Module, replay: Replay) -> None:
        self.prune(agent)
        self.fix(agent)
        optimizer = self.context.optimizer
        assert optimizer is not None
        ended = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            # A schedule may have ended at a rate of 0, which could not make up for the pruning.
            group["lr"] = group.get("initial_lr", group["lr"])
        for _ in range(self.retrain_epochs * replay.batches_per_epoch):
            optimizer.zero_grad()
            loss = self.context.loss(batch := next(replay))
            self.context.look()
            loss.backward()
            self.after_backward(agent)
            if self.context.clip_grad is not None:
                nn.utils.clip_grad_norm_(agent.parameters(), self.context.clip_grad)
            optimizer.step()
            self.after_step(agent, batch)
        for group, lr in zip(optimizer.param_groups, ended, strict=True):
            group["lr"] = lr

    def predict(self, agent: nn.Module, obs: Tensor, task: int | None) -> Tensor:
        """Outputs `[B, n]` with the weights of the tasks up to `task`; None: each class from its own task."""
        last = self.context.task
        if task is not None:
            return self.outputs_of(agent, min(task, last), obs)
        outputs = [self.outputs_of(agent, t, obs) for t in range(last + 1)]
        return put_together(outputs, self.context.classes)

    def outputs_of(self, agent: nn.Module, task: int, obs: Tensor) -> Tensor:
        """Outputs `[B, n]` of a task's network."""
        return self.context.recall(self.weights(agent, task), obs, task)

    def parameters_used(self, agent: nn.Module) -> dict[str, int | list[int]]:
        """How many weights each task so far owns, and how many there are."""
        owner = torch.cat([owner.flatten() for owner in self.owner.values()])
        used = [int((owner == task).sum()) for task in range(self.context.task + 1)]
        return {"used": used, "total": owner.numel()}

    def weights(self, agent: nn.Module, task: int) -> dict[str, Tensor]:
        """Parameters and buffers of a task's network: weights of later tasks are 0."""
        found = {}
        for name, parameter in agent.named_parameters():
            if name in self.owner:
                weight = parameter.detach()
                mask = (self.owner[name] <= task).to(weight.dtype)
                found[name] = torch.addcmul(weight.new_zeros(()), weight, mask)  # Never -0.
        return found

    def prune(self, agent: nn.Module) -> None:
        """Free the current task's smallest weights in each layer."""
        task, num_tasks = self.context.task, self.context.num_tasks
        keep = 1 / (num_tasks - task) if self.keep is None else self.keep
        for name, parameter in agent.named_parameters():
            if name not in self.owner or name in self.outputs or parameter.dim() < 2:
                continue
            mine = self.owner[name] == task
            size = torch.where(mine, parameter.detach().abs(), torch.inf).flatten()
            count = int(mine.sum())
            freed = torch.zeros_like(mine).flatten()
            freed[size.argsort(stable=True)[: count - round(keep * count)]] = True
            self.owner[name][freed.view_as(mine)] = FREE
            parameter.detach().masked_fill_(freed.view_as(mine), 0)

    def fix(self, agent: nn.Module) -> None:
        """Determine what the current task trains, and remember the values that it must not change."""
        task, weights = self.context.task, dict(agent.named_parameters())
        self.mine = {n: (o == task).to(weights[n].dtype) for n, o in self.owner.items()}
        self.fixed = {
            n: torch.where(o == task, 0, weights[n].detach()) for n, o in self.owner.items()
        }
        if task:
            whole = weights | running_statistics(agent)
            self.fixed |= {n: t.detach().clone() for n, t in whole.items() if n not in self.owner}

    def state_dict(self) -> dict[str, Any]:
        # The rest follows from these and the weights.
        return {"owner": self.owner, "outputs": self.outputs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.context.device
        self.outputs = state.get("outputs", self.outputs)
        self.owner = {name: owner.clone().to(device) for name, owner in state["owner"].items()}
        self.fixed = None

"""Gradient episodic memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ...replay import Batch, ConfigError, Memory, Replay
from ...replay.transfer import upload
from .context import Context
from .strategy import Strategy


class GEM(Strategy):
    """Change the gradient as little as possible so that no earlier task's loss rises.

    Source: Lopez-Paz & Ranzato, 2017 (arXiv 1706.08840), eqs. 7 to 11. Let g be the gradient on the batch,
    and let row t of M be the gradient of the model's loss on the rows remembered from task t. If any entry
    of M g is negative, g becomes

        g + M' v,    v = argmin v' (M M' + eps I) v / 2 + (M g)' v  subject to  v >= margin

    The paper solves for a margin of 0 and then adds the margin to v. The authors' code constrains v to be
    at least the margin, and so does this.

    Args:
        capacity: Rows in memory, `capacity // num_tasks` from each task, drawn when the task ends.
        margin: How far to go beyond doing no harm, a float; more favours the earlier tasks.
        eps: Float that keeps the problem well-posed; the default is the authors'.
    """

    owns = frozenset({"gradient"})
    no_environments = "it projects the gradient by losses of labelled rows of earlier tasks"
    needs_borders = True
    needs_all_tasks = True

    def __init__(self, capacity: int = 500, margin: float = 0.5, eps: float = 1e-3):
        self.capacity, self.margin, self.eps = capacity, margin, eps
        self.past: list[Memory] = []  # Of each task.

    def setup(self, agent: nn.Module) -> None:
        share, seed = share_of_task(self.capacity, self.context), self.context.seed
        self.past = [Memory(share, seed=seed + task) for task in range(self.context.num_tasks)]

    def end_task(self, agent: nn.Module, replay: Replay) -> None:
        draw(self.past[self.context.task], replay, self.context)

    def after_backward(self, agent: nn.Module) -> None:
        kept = [memory.all() for memory in self.past if len(memory)]
        if not kept:
            return
        parameters, gradient = gradient_now(agent)
        each = [gradient_on(rows, parameters, self.context) for rows in kept]
        past = torch.stack(each)  # [tasks, P]
        # All products together, so that the host waits for the accelerator only once.
        products = (past @ torch.stack((*each, gradient)).T).cpu().double().numpy()
        if not (products[:, -1] < 0).any():
            return
        v = dual(products[:, :-1], products[:, -1], margin=self.margin, eps=self.eps)
        write(gradient + upload(torch.from_numpy(v).to(past.dtype), past.device) @ past, parameters)


def dual(gram: np.ndarray, product: np.ndarray, *, margin: float, eps: float) -> np.ndarray:
    """`argmin v' (gram + eps I) v / 2 + product' v` subject to `v >= margin`, float64 `[tasks]`.

    Uses the active-set method for nonnegative least squares of Lawson & Hanson (1974), chapter 23, which is
    exact after solving a few systems of at most `tasks` equations.

    Args:
        gram: M M', float64 `[tasks, tasks]`.
        product: M g, float64 `[tasks]`.
    """
    n = len(product)
    square = gram + eps * np.eye(n)
    # Substitute u = v - margin, whose only constraint is u >= 0.
    linear = product + margin * square.sum(1)
    least = 1e-12 * np.abs(linear).max()
    u, free = np.zeros(n), np.zeros(n, bool)
    # Far more rounds than it needs: a bound, in case rounding makes it cycle.
    for _ in range(10 * n):
        gain = np.where(free, -np.inf, -(square @ u + linear))
        if not (gain > least).any():
            break
        free[gain.argmax()] = True
        while True:
            best = np.zeros(n)
            best[free] = np.linalg.solve(square[np.ix_(free, free)], -linear[free])
            below = free & (best < 0)
            if not below.any():
                break
            # Towards the best as far as all stay >= 0; those that end at 0 are fixed there.
            far = u[below] / (u[below] - best[below])
            u += far.min() * (best - u)
            free[np.flatnonzero(below)[far == far.min()]] = False
            u[~free] = 0
        u = best
    return u + margin


def share_of_task(capacity: int, context: Context) -> int:
    """Rows per task in a memory that all tasks share equally.

    Raises:
        ConfigError: If that is less than one row.
    """
    if capacity < context.num_tasks:
        raise ConfigError(
            f"capacity={capacity} is less than one row for each of the {context.num_tasks} tasks."
        )
    return capacity // context.num_tasks


def draw(memory: Memory, replay: Replay, context: Context) -> None:
    """Fill a memory with rows of the current task, drawn at random."""
    for batch in replay.once():
        memory.add(context.rows_to_store(batch))


def gradient_now(agent: nn.Module) -> tuple[list[nn.Parameter], Tensor]:
    """The parameters that backward has reached, and their gradient `[P]`."""
    reached = [(p, p.grad) for p in agent.parameters() if p.grad is not None]
    return [p for p, _ in reached], flat([grad for _, grad in reached])


def gradient_on(past: Batch, parameters: Sequence[nn.Parameter], context: Context) -> Tensor:
    """Gradient `[P]` of the model's loss on rows of a memory; leaves every `.grad` unchanged."""
    loss = context.loss(context.augmented(past))
    trained = [p for p in parameters if p.requires_grad]  # `learn` may have frozen others by now.
    found = iter(torch.autograd.grad(loss, trained, materialize_grads=True))
    return flat([next(found) if p.requires_grad else torch.zeros_like(p) for p in parameters])


def flat(gradients: Sequence[Tensor]) -> Tensor:
    """The gradients flattened and concatenated, `[P]`."""
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


def write(gradient: Tensor, parameters: Sequence[nn.Parameter]) -> None:
    """Write a gradient `[P]` into the parameters' `.grad`, each its own part."""
    parts = gradient.split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)

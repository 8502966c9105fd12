"""Gradients as one vector, and their projection onto directions that do not harm a memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


def store_grad(
    params: Callable[[], Iterable[Tensor]], grads: Tensor, grad_dims: Sequence[int]
) -> None:
    """Write the parameters' gradients into a vector, zero where there is none.

    Args:
        params: Returns the parameters, such as `model.parameters`.
        grads: float `[P]`, overwritten.
        grad_dims: int, number of elements of each parameter.
    """
    grads.zero_()
    for param, part in zip(params(), grads.split(list(grad_dims)), strict=True):
        if param.grad is not None:
            part.copy_(param.grad.detach().flatten())


def overwrite_grad(
    params: Callable[[], Iterable[Tensor]], newgrad: Tensor, grad_dims: Sequence[int]
) -> None:
    """Write a vector, as made by `store_grad`, into the existing gradients."""
    for param, part in zip(params(), newgrad.split(list(grad_dims)), strict=True):
        if param.grad is not None:
            param.grad.detach().copy_(part.view_as(param.grad))


def project(gxy: Tensor, ger: Tensor) -> Tensor:
    """`gxy`, `[P]`, without its part along `ger`.

    Source: Chaudhry et al. (2019), A-GEM, arXiv 1812.00420, eq. 11.
    """
    return gxy - torch.dot(gxy, ger) / torch.dot(ger, ger) * ger


class SolvesQuadratic(Protocol):
    """A module with a solver of quadratic programs, such as quadprog."""

    @property
    def solve_qp(self) -> Callable[..., Any]: ...


def project2cone2(
    solver: SolvesQuadratic,
    gradient: Tensor,
    memories: Tensor,
    margin: float = 0.5,
    eps: float = 1e-3,
) -> None:
    """Project a gradient to the nearest one that agrees with every memory's gradient.

    Source: Lopez-Paz and Ranzato (2017), GEM, arXiv 1706.08840, eq. 11: its dual is solved.

    Args:
        solver: A module with quadprog's `solve_qp`.
        gradient: float `[P, 1]`, overwritten.
        memories: float `[P, t]`, the gradient of each earlier task.
        margin: Added to the dual variables: a memory's gradient has at least this weight.
        eps: Added to the diagonal, so that the problem is strictly convex.
    """
    # On the host in float64, as quadprog requires; `held.T @ held` also squares the condition number.
    held = memories.detach().cpu().double()  # (P, t)
    new = gradient.detach().cpu().double().flatten()  # (P,)
    tasks = held.shape[1]
    quadratic = held.T @ held
    quadratic.diagonal().add_(eps)
    at_least = torch.full((tasks,), margin, dtype=torch.float64)
    # Minimise w'Qw / 2 + (held' new)'w over w >= margin: one weight of each memory's gradient.
    problem = (quadratic, -(held.T @ new), torch.eye(tasks, dtype=torch.float64), at_least)
    weights = torch.from_numpy(solver.solve_qp(*(part.numpy() for part in problem))[0])
    gradient.copy_((new + held @ weights)[:, None])

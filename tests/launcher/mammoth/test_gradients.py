"""Gradients as vectors, and their projections."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from antelope.launcher import mammoth as m


def gradient_of(net: nn.Module, dims: list[int]) -> Tensor:
    vector = torch.full((sum(dims),), 9.0)
    m.store_grad(net.parameters, vector, dims)
    return vector


def test_gradients_are_written_to_a_vector_and_back() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    dims = [p.numel() for p in net.parameters()]
    net[0](torch.ones(1, 2)).sum().backward()  # The second layer has no gradient.
    vector = gradient_of(net, dims)
    assert vector.tolist() == [1.0] * 9 + [0.0] * 4
    m.overwrite_grad(net.parameters, 2 * vector + 1, dims)
    assert net[0].bias.grad is not None
    assert net[0].bias.grad.tolist() == [3.0] * 3
    assert net[1].weight.grad is None


def test_a_projected_gradient_does_not_oppose_the_memorys() -> None:
    new, old = torch.tensor([1.0, -2.0]), torch.tensor([0.0, 3.0])
    assert m.project(new, old).tolist() == [1.0, 0.0]


def test_gems_projection_solves_for_all_memories_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Orthogonal memories, so each constraint is on its own: v_i = max(margin, -g_i . g / |g_i|^2).
    def solve_qp(gram: Any, linear: Any, constraints: Any, bounds: Any) -> Any:
        assert np.allclose(constraints, np.eye(2))
        return (np.maximum(bounds, linear / np.diag(gram)),)

    solver = types.ModuleType("solver")
    solver.solve_qp = solve_qp  # type: ignore[attr-defined]
    gradient = torch.tensor([[-2.0], [3.0], [1.0]])
    memories = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    m.project2cone2(solver, gradient, memories, margin=0.0, eps=0.0)
    assert gradient.flatten().tolist() == [0.0, 3.0, 1.0]

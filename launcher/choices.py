"""Actions of a model that has `forward` but no `act`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..agents.blocks.distributions import distribution, executable
from ..agents.blocks.parts import ACTION
from ..agents.blocks.spaces import bounds
from ..replay import Space
from .learner import Learner

_EPSILON = 0.1  # Share of random discrete actions.
_NOISE = 0.1  # Deviation of the noise on continuous ones, as a share of half their range.


def choose(output: Any, learner: Learner) -> Any:
    """The action that a forward's output means; when training, with some exploration."""
    return _each(learner.spec.action, output, learner.agent.training)


def _each(space: Any, output: Any, explore: bool) -> Any:
    if isinstance(space, dict):
        return {name: _each(part, output[name], explore) for name, part in space.items()}
    if isinstance(output, dict):
        output = output[ACTION]
    if isinstance(output, Distribution) or output.shape[1:] != space.shape:
        # A distribution, or what makes one: twice as many numbers as a Box has.
        policy = distribution(space, output)
        return executable(space, policy.sample() if explore else policy.mode)
    if not space.discrete:
        return _continuous(space, output, explore)
    if space.binary:
        action = (output > 0).long()
        return _sometimes(action, torch.randint_like(action, 2)) if explore else action
    if space.nvec:
        parts = [part.argmax(-1) for part in output.split(list(space.nvec), -1)]
        action = torch.stack(parts, -1)
        if not explore:
            return action
        draws = [torch.randint_like(p, n) for p, n in zip(parts, space.nvec, strict=True)]
        return _sometimes(action, torch.stack(draws, -1))
    action = output.argmax(-1)
    return _sometimes(action, torch.randint_like(action, space.n)) if explore else action


def _sometimes(action: Tensor, other: Tensor) -> Tensor:
    random = torch.rand(len(action), device=action.device) < _EPSILON
    return torch.where(random.view(-1, *[1] * (action.dim() - 1)), other, action)


def _continuous(space: Space, output: Tensor, explore: bool) -> Tensor:
    low, high, _ = bounds(space, output.device)
    if explore:
        half = torch.where(torch.isfinite(high - low), (high - low) / 2, 1.0)
        output = output + _NOISE * half * torch.randn_like(output)
    return output.clamp(low, high)

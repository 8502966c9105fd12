"""Actions of a model that has `forward` but no `act`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...agents.policy.heads import distribution, executable
from ...agents.policy.masks import draw_allowed, restrict_scores, restricted
from ...agents.policy.parts import ACTION
from ...agents.policy.spaces import bounds
from ...replay import Space
from .learner import Learner

_EPSILON = 0.1  # Share of random discrete actions.
_NOISE = 0.1  # Standard deviation of the noise on continuous ones, as a share of half their range.


def choose(output: Any, learner: Learner, mask: Any = None) -> Any:
    """The actions that a forward's output stands for; in training mode, with some exploration.

    Args:
        output: Scores or values `[N, *action.shape]`, a distribution, or a dict of such.
        mask: Bool, shaped like the scores: the choices that are allowed; None: all of them.

    Returns:
        int64 choices or float values, `[N, ...]`; nested like the action space.
    """
    return _each(learner.spec.action, output, learner.agent.training, mask)


def _each(space: Space | dict[str, Any], output: Any, explore: bool, mask: Any) -> Any:
    if isinstance(space, dict):
        masks = mask or {}
        return {n: _each(part, output[n], explore, masks.get(n)) for n, part in space.items()}
    if isinstance(output, dict):
        output = output[ACTION]
    if isinstance(output, Distribution) or output.shape[1:] != space.shape:
        # A distribution, or its parameters: twice as many numbers as the Box has.
        policy = restricted(distribution(space, output), mask)
        return executable(space, policy.sample() if explore else policy.mode)
    if not space.discrete:
        return _continuous(space, output, explore)
    action = _best(space, restrict_scores(space, output, mask))
    return _sometimes(action, _any(space, action, mask)) if explore else action


def _best(space: Space, scores: Tensor) -> Tensor:
    if space.binary:
        return (scores > 0).long()
    if space.nvec:
        return torch.stack([part.argmax(-1) for part in scores.split(list(space.nvec), -1)], -1)
    return scores.argmax(-1)


def _any(space: Space, action: Tensor, mask: Any) -> Tensor:
    """Random actions, as many as there are in `action`."""
    if mask is not None:
        return draw_allowed(space, mask)
    if space.nvec:
        draws = [torch.randint_like(action[..., i], n) for i, n in enumerate(space.nvec)]
        return torch.stack(draws, -1)
    return torch.randint_like(action, 2 if space.binary else space.n)


def _sometimes(action: Tensor, other: Tensor) -> Tensor:
    """`other` in a random share of the rows, else `action`; both `[N, ...]`."""
    random = torch.rand(len(action), device=action.device) < _EPSILON
    return torch.where(random.view(-1, *[1] * (action.dim() - 1)), other, action)


def _continuous(space: Space, output: Tensor, explore: bool) -> Tensor:
    low, high, _ = bounds(space, output.device)
    if explore:
        # Without bounds there is no range: the noise is then in the action's own units.
        half = torch.where(torch.isfinite(high - low), (high - low) / 2, 1.0)
        output = output + _NOISE * half * torch.randn_like(output)
    return output.clamp(low, high)

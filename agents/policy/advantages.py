"""Advantages of a rollout's actions, for on-policy agents.

Legend: T time steps, N environments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...replay import Batch
from ...replay.ranks import ranks


def next_values(rollout: Batch, value: Tensor, critic: Callable[[Any], Tensor]) -> Tensor:
    """The value of every next observation of a rollout, `[T, N]`, without gradient.

    Args:
        rollout: `truncated` and `mask`, `[T, N]`, and `next_obs` `[T, N, ...]`.
        value: V of every observation, `[T, N]`.
        critic: Maps observations `[M, ...]` to V, `[M]`. It is called only for the last observations of
            truncated episodes and of the rollout; elsewhere V(s_t+1) is the next row of `value`.
    """
    mask = rollout.mask
    unknown = (rollout.truncated | _last(mask)) & mask
    where = places(unknown)
    with torch.no_grad():
        following = value.detach().roll(-1, 0)
        last_obs = Batch(obs=rollout.next_obs).map(lambda obs: at(obs, where)).obs
        following.view(-1).index_copy_(0, where, critic(last_obs).to(following.dtype))
    return following


def advantages(rollout: Batch, value: Tensor, next_value: Tensor, *, gae_lambda: float) -> Tensor:
    """How much better each action of a rollout was than the critic expected.

        delta_t = r_t + d_t V(s_t+1) - V(s_t)
        A_t     = delta_t + d_t lambda A_t+1

    where `d_t` is the discount, 0 where the episode terminated, and `A_t+1 = 0` where the episode or the
    rollout ended. With lambda = 1, A_t is the discounted sum of the rewards that follow, plus the
    discounted value of the last state, minus V(s_t). The critic's target is `A_t + V(s_t)`.

    Source: Schulman et al. (2015), arXiv 1506.02438, eq. 16.

    Args:
        rollout: `reward`, `discount`, `terminated`, `truncated`, `mask`, all `[T, N]`.
        value: V of every observation, `[T, N]`.
        next_value: V of every next observation, `[T, N]`.

    Returns:
        `[T, N]` float32 without gradient, 0 where `mask` is False.
    """
    mask = rollout.mask
    with torch.no_grad():
        delta = rollout.reward + rollout.discount * next_value - value
        # Select rather than multiply: masked entries may be NaN.
        delta = torch.where(mask, delta, 0)
        goes_on = mask & ~(rollout.terminated | rollout.truncated | _last(mask))
        decay = torch.where(goes_on, rollout.discount * gae_lambda, 0)
        return _sum_backwards(delta, decay)


def over_ranks(advantage: Tensor, rows: int) -> tuple[Tensor, Tensor, int, int]:
    """What all devices need to agree on to learn from their rollouts together.

    Args:
        advantage: Those of this device's steps, `[M]`.
        rows: Transitions or segments of its rollout.

    Returns:
        The standard deviation and the mean of the advantages on all devices, and the number of steps there;
        and the smallest number of rows.
    """
    place = ranks()
    if not place.own:
        std, mean = torch.std_mean(advantage, correction=0)
        return std, mean, len(advantage), rows
    sums = [
        len(advantage),
        float(advantage.double().sum()),
        float(advantage.double().square().sum()),
    ]
    each = torch.tensor(place.objects([*sums, rows]), dtype=torch.float64)
    steps, total, squares, _ = each.sum(0)
    mean = total / steps
    std = (squares / steps - mean**2).clamp(min=0).sqrt()
    found = torch.stack((std, mean)).to(advantage)
    return found[0], found[1], int(steps), int(each[:, 3].min())


def places(mask: Tensor) -> Tensor:
    """Flat indices of a mask's True entries, `[T, N]` to int64 `[M]`. Call it once: it synchronises."""
    return mask.flatten().nonzero().squeeze(1)


def at(field: Tensor, where: Tensor) -> Tensor:
    """`field[mask]` of a field `[T, N, ...]`, `[M, ...]`, by the mask's `places`."""
    return field.flatten(0, 1).index_select(0, where)


def _last(mask: Tensor) -> Tensor:
    """Bool `[T, N]`: steps after which their environment has no further step."""
    last = torch.ones_like(mask)
    last[:-1] = ~mask[1:]
    return last


def _sum_backwards(delta: Tensor, decay: Tensor) -> Tensor:
    """`A_t = delta_t + decay_t A_t+1`, from the last row to the first."""
    total, totals = torch.zeros_like(delta[0]), []
    for d, k in zip(reversed(delta.unbind()), reversed(decay.unbind()), strict=True):
        total = torch.addcmul(d, k, total)
        totals.append(total)
    return torch.stack(totals[::-1])

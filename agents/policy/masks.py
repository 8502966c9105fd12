"""Action masks: choices that an environment's `info` rules out.

    allowed(s) = {a : mask[a] = 1}
    pi(a|s)    = exp(z_a) / sum_{b in allowed(s)} exp(z_b)  for a in allowed(s), else 0
    greedy(s)  = argmax_{a in allowed(s)} Q(s, a)           random(s) ~ uniform(allowed(s))

Acting, gradients, probability ratios and entropies all use the masked policy: no gradient reaches the logits
of actions that are ruled out (Huang & Ontanon, 2022, arXiv 2006.14171).

A mask is `[..., n]` for one choice of n; for several choices, those of all parts concatenated,
`[..., sum(nvec)]`; and for n yes-or-no decisions `[..., 2 n]` (no, yes, no, yes, ...). A dict of actions has
a dict of masks. A mask that allows nothing is read as allowing everything: it belongs to the observation
after an episode's end, where no action is taken and whose value does not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...replay import Batch, ConfigError, Space
from .distributions import Bernoulli, Categorical, Joint, MultiCategorical

ACTION_MASK = "action_mask"
NEXT_ACTION_MASK = "next_action_mask"
_FAR = 1e9  # Practically minus infinity, but finite: -inf would produce NaN in arithmetic.


def mask_in(fields: Mapping[str, Any] | Batch | None, name: str = ACTION_MASK) -> Any:
    """The mask among the fields of `info` or of a batch, or None."""
    return fields[name] if fields is not None and name in fields else None


def allowed(mask: Tensor, sizes: tuple[int, ...] = ()) -> Tensor:
    """The mask as bool `[..., n]`; all True where nothing is allowed.

    Args:
        sizes: Choices of each part, ints that sum to n, where there are several parts.

    >>> allowed(torch.tensor([[1, 0], [0, 0]]))
    tensor([[ True, False],
            [ True,  True]])
    """
    mask = mask != 0
    if len(sizes) > 1:
        return torch.cat([allowed(part) for part in mask.split(list(sizes), -1)], -1)
    return mask | ~mask.any(-1, keepdim=True)


def masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Scores `[..., n]` of one choice, minus infinity where masked; unchanged if `mask` is None.

    >>> masked(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([0, 1, 1])).argmax(-1)
    tensor(2)
    """
    return scores if mask is None else scores.masked_fill(~allowed(mask), -torch.inf)


def draw_allowed(space: Space, mask: Tensor) -> Tensor:
    """Values of a discrete action, uniform among the allowed ones."""
    if space.binary or space.nvec:
        sizes = (2,) * space.n if space.binary else space.nvec
        return torch.stack([_one(part) for part in mask.split(list(sizes), -1)], -1)
    return _one(mask)


def _one(mask: Tensor) -> Tensor:
    chances = torch.rand(mask.shape, device=mask.device)
    return chances.masked_fill_(~allowed(mask), -1).argmax(-1)


def restricted(policy: Any, mask: Any) -> Any:
    """A distribution over actions, restricted to the allowed ones.

    Args:
        policy: As `distribution` and `action_head` return it.
        mask: Mask for its batch, `[..., n]`, or a dict of masks; None: everything is allowed.

    Raises:
        ConfigError: If it is a torch distribution without logits of choices.
    """
    if mask is None:
        return policy
    if isinstance(policy, Joint):
        return Joint({n: restricted(part, mask.get(n)) for n, part in policy.parts.items()})
    given = getattr(policy, "given", policy)  # Of torch's own.
    if isinstance(given, torch.distributions.Independent):
        given = given.base_dist
    if isinstance(policy, MultiCategorical):
        sizes = tuple(part.log_p.shape[-1] for part in policy.parts)
        log_p = torch.cat([part.log_p for part in policy.parts], -1)
        return MultiCategorical(log_p.masked_fill(~allowed(mask, sizes), -torch.inf), sizes)
    if isinstance(policy, Bernoulli):
        no, yes = allowed(mask, (2,) * policy.logits.shape[-1]).unflatten(-1, (-1, 2)).unbind(-1)
        logits = policy.logits.masked_fill(~yes, -_FAR)
        return Bernoulli(logits.masked_fill(~no, _FAR))
    if isinstance(policy, Categorical):
        return Categorical(masked(policy.log_p, mask))
    if isinstance(given, torch.distributions.Categorical) and given.logits.shape == mask.shape:
        return Categorical(masked(given.logits.float(), mask))
    raise ConfigError(
        f"action_mask rules out choices, but a {type(given).__name__} has no logits: return logits, "
        "or a Categorical."
    )


def restrict_scores(space: Space, scores: Tensor, mask: Any) -> Tensor:
    """A forward's scores `[..., *space.shape]` for any kind of choices, minus infinity where masked."""
    if mask is None:
        return scores
    if space.binary:
        no, yes = allowed(mask, (2,) * space.n).unflatten(-1, (-1, 2)).unbind(-1)
        return scores.masked_fill(~yes, -_FAR).masked_fill(~no, _FAR)
    return scores.masked_fill(~allowed(mask, space.nvec), -torch.inf)

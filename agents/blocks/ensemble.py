"""Several networks as one.

Legend: E members, B the batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ...replay import Batch, ConfigError, Replay
from ...replay.batch import Tensors
from .encoder import Trunk
from .precision import full_precision


class Ensemble(nn.Module):
    """The mean output of several models on the same input, `[B, ...]`.

    `spread` measures their disagreement, which is large for observations unlike the training data
    (Lakshminarayanan et al., 2017, arXiv 1612.01474).

    Args:
        members: The models; or their class, or the name of a block, to construct `count` of.
        count: Number of members to construct.
        in_shape: Shape of an observation, `[B, *in_shape]`, for members constructed here.
        out_features: Width of their output, `[B, out_features]`, likewise.

    Raises:
        ConfigError: If the block is unknown, its arguments are missing, or there are no members.

    >>> ensemble = Ensemble("MLP", 3, in_shape=(4,), out_features=2)
    >>> ensemble(torch.zeros(5, 4)).shape, ensemble.spread(torch.zeros(5, 4)).shape
    (torch.Size([5, 2]), torch.Size([5, 2]))
    """

    def __init__(
        self,
        members: Sequence[nn.Module] | Callable[..., nn.Module] | str = "MLP",
        count: int = 5,
        in_shape: Sequence[int] | None = None,
        out_features: int | None = None,
    ):
        super().__init__()
        if isinstance(members, str) or callable(members):
            members = _constructed(members, count, in_shape, out_features)
        if not members:
            raise ConfigError("Ensemble has no members. Pass a list of modules, or count=5.")
        self.members = nn.ModuleList(members)

    def forward(self, obs: Tensors) -> Tensor:
        return self.outputs(obs).mean(0)

    def outputs(self, obs: Tensors) -> Tensor:
        """Every member's output, `[E, B, ...]`."""
        return torch.stack([member(obs) for member in self.members])

    def spread(self, obs: Tensors) -> Tensor:
        """The standard deviation of the members' outputs, `[B, ...]`; zero for a single member."""
        return self.outputs(obs).std(0, correction=0)


def _constructed(
    block: Callable[..., nn.Module] | str,
    count: int,
    in_shape: Sequence[int] | None,
    out_features: int | None,
) -> list[nn.Module]:
    """`count` members, with the shapes passed under the names that their constructor uses."""
    if isinstance(block, str):
        blocks = import_module(__package__)
        names = [name for name in blocks.NAMES["model"] if name not in ("Ensemble", "Recurrent")]
        if block not in names:
            raise ConfigError(
                f"Ensemble: there is no block `{block}`. Members can be {', '.join(names)}, any class "
                "with in_shape or in_features and out_features, or a list of modules."
            )
        maker: Callable[..., nn.Module] = getattr(blocks, block)
    else:
        maker = block
    known: dict[str, Any] = {}
    if in_shape is not None:
        known |= {"in_shape": in_shape, "in_features": prod(in_shape)}
        known |= {"in_channels": in_shape[0] if in_shape else 1}
    if out_features is not None:
        known["out_features"] = out_features
    wanted = inspect.signature(maker).parameters
    missing = [
        name
        for name, parameter in wanted.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and name not in known
    ]
    if missing:
        raise ConfigError(
            f"Ensemble cannot construct its members without {', '.join(missing)}. Pass in_shape and "
            "out_features, or a list of modules."
        )
    return [
        maker(**{name: value for name, value in known.items() if name in wanted})
        for _ in range(count)
    ]


class EnsembleLinear(nn.Module):
    """`members` linear layers in one product, each initialised like `nn.Linear`.

    y_e = x_e W_e + b_e, from `[E, B, in_features]` (or `[B, in_features]`, the same for all of
    them) to `[E, B, out_features]`.
    """

    def __init__(self, members: int, in_features: int, out_features: int):
        super().__init__()
        bound = max(in_features, 1) ** -0.5
        # Outputs last, unlike nn.Linear, which makes the weights' gradient a plain product.
        weight = torch.empty(members, in_features, out_features).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.empty(members, 1, out_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 2:
            x = x.expand(len(self.weight), -1, -1)
        # A sum is several times faster than a matrix product with one column.
        if self.weight.shape[2] == 1:
            return (x * self.weight.mT).sum(2, keepdim=True) + self.bias
        return torch.baddbmm(self.bias, x, self.weight)

    def extra_repr(self) -> str:
        members, in_features, out_features = self.weight.shape
        return f"{members=}, {in_features=}, {out_features=}"


class Critics(nn.Module):
    """Several independent Q-functions, evaluated together (Fujimoto et al., 2018).

    For continuous actions `[B, num_actions]`, which are an input, `critics(obs, action)` is `[E, B]`. For
    choices, with `discrete`, `critics(obs)` is `[E, B, num_actions]`. Both are float32, under autocast too.

    Args:
        trunk: Maps observations to features; shared by the members.
        hidden: Widths of each member's layers, ints from 1.
    """

    def __init__(
        self,
        trunk: Trunk,
        num_actions: int,
        hidden: Sequence[int],
        *,
        members: int = 2,
        discrete: bool = False,
    ):
        super().__init__()
        self.trunk = trunk
        width = trunk.out_features + (0 if discrete else num_actions)
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [EnsembleLinear(members, width, size), nn.ReLU()]
            width = size
        layers += [EnsembleLinear(members, width, num_actions if discrete else 1)]
        self.members = nn.Sequential(*layers)

    def forward(self, obs: Tensors, action: Tensor | None = None) -> Tensor:
        features = self.trunk(obs)
        if action is None:
            return full_precision(self.members(features))  # [E, B, num_actions]
        return full_precision(self.members(torch.cat([features, action], 1))).squeeze(2)  # [E, B]


def td_loss(q: Tensor, target: Tensor, batch: Batch, replay: Replay) -> Tensor:
    """The members' mean squared errors, summed: `q` is `[E, B]`, `target` `[B]`.

    With a prioritised replay, rows count by their importance weights, and each row's priority is set to
    the members' mean absolute error (Schaul et al., 2015, arXiv 1511.05952).
    """
    error = target - q
    loss = error.square()
    if replay.prioritized:
        replay.update_priorities(batch.index, error.detach().abs().mean(0))
        loss = loss * batch.weight
    return loss.mean(1).sum()

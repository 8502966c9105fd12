"""Networks that map observations of any space to a vector of features."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...replay import Space
from ...replay.tree import leaves
from ..policy.in_numpy import ROWS
from .categories import Categories
from .integers import Lookup


def encoder(
    space: Space | dict[str, Any],
    hidden: Sequence[int] = (64, 64),
    activation: type[nn.Module] = nn.ReLU,
) -> Trunk:
    """A network from `[B, *space.shape]` to features `[B, out_features]`.

    Images pass a CNN first, ids are embedded, and other observations are flattened; linear layers with
    the widths in `hidden` follow, each with an `activation`. The parts of a dict, which may be nested, are
    concatenated into one vector, in the dict's order. With `hidden=()` the features are what the first
    linear layer would have received.

    >>> trunk = encoder(Space((4,)), hidden=(64, 32))
    >>> trunk(torch.zeros(5, 4)).shape, trunk.out_features
    (torch.Size([5, 32]), 32)
    """
    layers: list[nn.Module]
    if isinstance(space, dict):
        joint = Joint({name: encoder(part, (), activation) for name, part in space.items()})
        layers, width = [joint], joint.out_features
    elif space.ids is not None:
        lookup = Categories(space) if space.nvec else Lookup(space)
        layers, width = [lookup], lookup.out_features
    elif len(space.shape) == 3 and min(space.shape[1:]) >= 4:
        cnn = nature_cnn if min(space.shape[1:]) >= 36 else small_cnn
        layers = [*cnn(space.shape[0], activation), nn.Flatten()]
        with torch.no_grad():
            width = nn.Sequential(*layers)(torch.zeros(1, *space.shape)).shape[1]
    else:
        layers, width = ([] if len(space.shape) == 1 else [Flat()]), prod(space.shape)
    for size in hidden:
        layers += [nn.Linear(width, size), activation()]
        width = size
    return Trunk(layers, width)


class Layers(nn.Sequential):
    """`nn.Sequential` with less overhead.

    Linear layers and ReLUs are computed without calling their modules. On a single observation, the calls
    take as long as a small network's arithmetic: half of the time to act.
    """

    def forward(self, x: Any) -> Any:
        for layer in self._modules.values():
            assert layer is not None
            kind, weights = type(layer), layer._parameters
            if kind is nn.ReLU:
                x = torch.relu(x)
            elif kind is nn.Linear and not (layer._forward_pre_hooks or layer._forward_hooks):
                x = F.linear(x, weights["weight"], weights["bias"])  # type: ignore[arg-type]
            else:
                x = layer(x)
        return x


class Trunk(Layers):
    """Layers that know the width of their output, `out_features`."""

    def __init__(self, layers: Sequence[nn.Module], out_features: int):
        super().__init__(*layers)
        self.out_features = out_features


ROWS |= {Layers, Trunk}


class Joint(nn.Module):
    """The features of every part of a dict observation, concatenated, `[B, out_features]`."""

    def __init__(self, parts: dict[str, Trunk]):
        super().__init__()
        # Not a ModuleDict: an observation's name may hold a dot, or be `keys`.
        self.names, self.parts = tuple(parts), nn.ModuleList(parts.values())
        self.out_features = sum(part.out_features for part in parts.values())

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        features = [part(obs[name]) for name, part in zip(self.names, self.parts, strict=True)]
        return torch.cat(features, 1)


class Flat(nn.Module):
    """`[B, ...]` to `[B, n]`; a single number per observation, `[B]`, becomes `[B, 1]`."""

    def forward(self, obs: Tensor) -> Tensor:
        return obs.flatten(1) if obs.dim() > 1 else obs[:, None]


def nature_cnn(channels: int, activation: type[nn.Module] = nn.ReLU) -> list[nn.Module]:
    """The convolutions of Mnih et al. (2015, Nature 518), for images of 36x36 pixels and more."""
    return [
        *(nn.Conv2d(channels, 32, 8, stride=4), activation()),
        *(nn.Conv2d(32, 64, 4, stride=2), activation()),
        *(nn.Conv2d(64, 64, 3, stride=1), activation()),
    ]


def small_cnn(channels: int, activation: type[nn.Module] = nn.ReLU) -> list[nn.Module]:
    """Two convolutions, for images too small for `nature_cnn`."""
    return [
        *(nn.Conv2d(channels, 16, 3, padding=1), activation()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), activation()),
    ]


def rows(obs: Tensor | dict[str, Any]) -> int:
    """The number of observations, B."""
    # `len` of a tensor takes six times as long.
    return (obs if isinstance(obs, Tensor) else leaves(obs)[0]).shape[0]

"""Target networks, and networks whose weights are frozen for a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def target_of(network: Network) -> Network:
    """A copy without gradients, which optimisers ignore."""
    return deepcopy(network).requires_grad_(False)


@torch.no_grad()
def follow(target: nn.Module, network: nn.Module, tau: float) -> None:
    """Move the target's weights towards the network's by a fraction `tau` in [0, 1]; 1 copies them.

        w' <- w' + tau (w - w')

    Source: Lillicrap et al. (2015), arXiv 1509.02971, algorithm 1.
    """
    torch._foreach_lerp_([*target.parameters()], [*network.parameters()], tau)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Runs the block with gradients passing through the network, but not computed for its weights."""
    # Listed once: walking through the modules takes longer than a small network's layer.
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    try:
        for weight in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)

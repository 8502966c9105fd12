"""Evaluates small networks with NumPy to act, which halves the time for a few observations.

On a CPU, torch's fixed overhead per operation is most of a small network's cost.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.modules.module as torch_modules
from torch import Tensor, nn

from ...replay.batch import Tensors

# Multiplications in one layer. From here on torch is as fast, and NumPy's BLAS may start threads of its
# own, which make a small product take ten times as long.
_MOST = 2**16

Function = Callable[[np.ndarray], np.ndarray]  # `[N, n]` float32 to `[N, m]`.
_ZERO = np.zeros((), np.float32)  # An array: a Python number would be converted at each call.

ROWS: set[type[nn.Module]] = {nn.Sequential}
"""Modules that are the row of their layers and no more; of exactly this class."""
KNOWN: dict[type[nn.Module], Function] = {
    nn.ReLU: partial(np.maximum, _ZERO),
    nn.Tanh: np.tanh,
    nn.Identity: lambda x: x,
}
"""What layers without weights do; of exactly this class, since a subclass may do anything."""


def in_numpy(network: nn.Module, obs: Tensors) -> np.ndarray | None:
    """The result of `network(obs)`, up to rounding; None if torch has to compute it.

    Supports a few observations `[N, n]` (float32, on the CPU, without gradient) and a sequence of known
    layers. Networks that do more than their layers say are left to torch: those with a hook, a
    parametrised weight, another precision. Weights are not copied; the arrays share their memory.

    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> with torch.no_grad():
    ...     in_numpy(network, torch.zeros(3, 4)).shape
    (3, 2)
    """
    if (
        type(obs) is not Tensor
        or type(network) not in ROWS
        or torch.is_grad_enabled()
        or obs.dtype is not torch.float32
        or not obs.is_cpu
        or obs.dim() != 2
        or torch.is_autocast_enabled("cpu")
        or torch.jit.is_tracing()
        or torch_modules._has_any_global_hook()
    ):
        return None
    plan = _PLANS.get(network)
    if plan is None or not plan.holds(network):
        if _altered(network):
            return None
        plan = _PLANS[network] = Plan(network)
    rows, width = obs.shape
    return plan(obs.numpy()) if rows <= plan.most and width == plan.width else None


class Plan:
    """A sequence of layers compiled to functions of arrays.

    Args:
        network: Instance of a class in `ROWS`; no reference to it is kept.

    Attributes:
        most: Largest number of observations that it supports at once; 0: none.
        width: Numbers in one observation.
    """

    def __init__(self, network: nn.Module):
        self._layers = layers = list(network._modules.values())
        self._kinds = [type(layer) for layer in layers]
        self._owns = [vars(layer) for layer in (network, *layers) if layer is not None]
        self._weights = [weight for layer in layers for weight in _weights(layer)]
        self._functions: list[Function] = []
        self.most = self.width = 0
        functions = [_function(layer) for layer in layers]
        sizes = [weight.numel() for _, _, weight, _, _ in self._weights]
        first = next((layer for layer in layers if type(layer) is nn.Linear), None)
        if first is not None and None not in functions:
            self._functions = functions  # type: ignore[assignment]
            self.most, self.width = _MOST // max(sizes), first.weight.shape[1]

    def holds(self, network: nn.Module) -> bool:
        """Whether the network still has the same layers and weights, with unmodified behaviour."""
        layers = list(network._modules.values())
        # torch's parametrisations replace a layer's class.
        if layers != self._layers or [type(layer) for layer in layers] != self._kinds:
            return False
        for own in self._owns:
            if own["_forward_hooks"] or own["_forward_pre_hooks"] or "forward" in own:
                return False
        for held, name, weight, address, size in self._weights:
            if held.get(name) is not weight:
                return False
            # Its `data` can be replaced.
            if weight.data_ptr() != address or weight.numel() != size:
                return False
        return True

    def __call__(self, x: np.ndarray) -> np.ndarray:
        for function in self._functions:
            x = function(x)
        return x


# Beside the modules: what is in them is copied, saved and sent with them.
_PLANS: WeakKeyDictionary[nn.Module, Plan] = WeakKeyDictionary()


def _altered(network: nn.Module) -> bool:
    """Whether the network or a layer does more than its class says."""
    return any(
        layer is None
        or layer._forward_hooks
        or layer._forward_pre_hooks
        or "forward" in vars(layer)
        for layer in (network, *network._modules.values())
    )


def _weights(layer: nn.Module | None) -> list[tuple[dict[str, Any], str, Tensor, int, int]]:
    """A layer's weights, with what identifies their memory: to notice when they move."""
    held = {} if layer is None else layer._parameters
    return [(held, n, w, w.data_ptr(), w.numel()) for n, w in held.items() if w is not None]


def _function(layer: nn.Module | None) -> Function | None:
    """A layer as a function of arrays; None if it is not supported."""
    if layer is None:
        return None
    if type(layer) is not nn.Linear:
        return KNOWN.get(type(layer))
    weight, bias = layer._parameters.get("weight"), layer._parameters.get("bias")
    if not _is_plain(weight) or not (bias is None or _is_plain(bias)):
        return None
    transposed = weight.detach().numpy().T  # type: ignore[union-attr]
    if bias is None:
        return lambda x: x.dot(transposed)
    # As [1, m]: adding to a single observation then needs no broadcasting, which is faster.
    shift = bias.detach().numpy()[None]

    def function(x: np.ndarray) -> np.ndarray:
        y: np.ndarray = x.dot(transposed)
        y += shift
        return y

    return function


def _is_plain(weight: object) -> bool:
    """Whether NumPy can share a weight's memory."""
    return (
        type(weight) is nn.Parameter
        and weight.dtype is torch.float32
        and weight.is_cpu
        and weight.is_contiguous()
    )

"""Models that carry a state: found by their forward, probed once, then reset and kept for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..replay import ConfigError

State = Any  # A tensor, or tuples, lists and dicts of them, as the model made it.


def is_recurrent(agent: nn.Module) -> bool:
    """Whether `forward` has a parameter `state`: that is the switch."""
    forward = type(agent).forward
    if forward is nn.Module.forward:
        return False
    return "state" in inspect.signature(forward).parameters


class Recurrence:
    """How the state of one model is laid out, found out by calling it.

    Every tensor of a state has one dimension that grows with the batch: the first of `nn.GRUCell`'s,
    the second of `nn.GRU`'s. A model whose layers only know sequences is given steps as sequences of
    one. An episode starts with a state of zeros, which has to be what `state=None` means.

    Args:
        agent: In eval mode, on its device.
        observe: Gives n observations, `[n, *obs.shape]` or a dict of them.

    Raises:
        ConfigError: If what it returns is not `(out, state)`, no dimension grows with the batch, or
            zeros are not the initial state.
    """

    def __init__(self, agent: nn.Module, observe: Callable[[int], Any]):
        self.agent, self._name = agent, type(agent).__name__
        observations = [observe(n) for n in (2, 3)]
        self.by_sequence = False
        try:
            out, state = self._probe(observations)
        except Exception as by_step:
            # The layers of torch read [N, features] as one long sequence: give them [N, 1, ...].
            self.by_sequence = True
            try:
                out, state = self._probe(observations)
            except ConfigError:
                raise
            except Exception:
                if isinstance(by_step, ConfigError):  # It knows steps only, and gave a wrong state.
                    raise by_step from None
                raise
        again = self._call(observations[0], _map(torch.zeros_like, state))[0]
        pairs = zip(_leaves(out), _leaves(again), strict=True)
        if not all(torch.allclose(a, b, atol=1e-5) for a, b in pairs):
            raise ConfigError(
                f"{self._name}.forward: a state of zeros and state=None give different outputs. Episodes "
                "start with zeros: begin with zeros where state is None."
            )
        self._template = state

    def _probe(self, observations: list[Any]) -> tuple[Any, State]:
        """Find the layout out; what two rows of observations give."""
        two, three = (self._call(obs, None) for obs in observations)
        self._layout = self._find_layout(two[1], three[1])
        return two

    def _call(self, obs: Any, state: State) -> tuple[Tensor, State]:
        if self.by_sequence:
            obs = _map(lambda x: x.unsqueeze(1), obs)
        result = self.agent(obs, state) if state is not None else self.agent(obs)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise ConfigError(
                f"{self._name}.forward(obs, state) returned a {type(result).__name__}; a recurrent model "
                "returns (out, state)."
            )
        out, state = result
        return _map(lambda x: x.squeeze(1), out) if self.by_sequence else out, state

    def _find_layout(self, two: State, three: State) -> Any:
        """Which dimension of each tensor is the batch, from states of two and of three rows."""

        def dimension(a: Any, b: Any) -> int:
            if not isinstance(a, Tensor):
                raise ConfigError(
                    f"{self._name}.forward: its state holds a {type(a).__name__}; a state is a tensor, or "
                    "tuples, lists and dicts of them."
                )
            grown = [i for i, (x, y) in enumerate(zip(a.shape, b.shape, strict=True)) if x != y]
            if len(grown) != 1 or a.shape[grown[0]] != 2:
                raise ConfigError(
                    f"{self._name}.forward: its state {list(a.shape)} does not grow with the batch. Each "
                    "tensor of it needs a dimension of the batch's size, as nn.GRU's [layers, B, hidden]."
                )
            return grown[0]

        return _zip(dimension, two, three)

    def step(self, obs: Any, state: State) -> tuple[Tensor, State]:
        """One step of n environments: out `[n, *action.shape]`, and their next state."""
        return self._call(obs, state)

    def zeros(self, n: int) -> State:
        """The state of n environments at an episode's start."""

        def make(leaf: Tensor, dimension: int) -> Tensor:
            shape = list(leaf.shape)
            shape[dimension] = n
            return leaf.new_zeros(shape)

        return _zip(make, self._template, self._layout)

    def reset(self, state: State, began: Tensor) -> State:
        """The state with zeros for the environments `[n]` where an episode starts."""

        def clear(leaf: Tensor, dimension: int) -> Tensor:
            shape = [1] * leaf.dim()
            shape[dimension] = -1
            return leaf.masked_fill(began.view(shape), 0)

        return _zip(clear, state, self._layout)

    def pack(self, state: State) -> dict[str, Tensor]:
        """As the replay keeps it: tensors `[n, ...]` by number."""
        leaves = zip(_leaves(state), _leaves(self._layout), strict=True)
        return {str(i): leaf.movedim(d, 0) for i, (leaf, d) in enumerate(leaves)}

    def unpack(self, packed: dict[str, Tensor]) -> State:
        """The reverse of `pack`: what `forward` takes."""
        rows = (packed[str(i)] for i in range(len(packed)))
        return _zip(
            lambda _, d: next(rows).movedim(0, d).contiguous(), self._template, self._layout
        )


def _map(function: Callable[[Any], Any], tree: Any) -> Any:
    return _zip(lambda leaf, _: function(leaf), tree, tree)


def _zip(function: Callable[[Any, Any], Any], tree: Any, other: Any) -> Any:
    if isinstance(tree, (tuple, list)):
        parts = [_zip(function, a, b) for a, b in zip(tree, other, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if isinstance(tree, dict):
        return {key: _zip(function, tree[key], other[key]) for key in tree}
    return function(tree, other)


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, (tuple, list)):
        return [leaf for part in tree for leaf in _leaves(part)]
    if isinstance(tree, dict):
        return [leaf for part in tree.values() for leaf in _leaves(part)]
    return [tree]

"""States of recurrent modules: their layout, found by calling the module, and operations on them.

A state is a tensor, or tuples, lists and dicts of tensors, as the module returned it. Each tensor has one
dimension that grows with the batch: the first in `nn.GRUCell`, the second in `nn.GRU`. A tree of the same
structure that holds these dimensions is called the state's layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ...replay import ConfigError
from ...replay.batch import Tensors
from ...replay.devices import about_devices
from ..traits import traits

State = Any  # A tensor, or tuples, lists and dicts of them; None: an episode's start.
Layout = Any  # Ints in the same structure.


class Recurrence:
    """How to call a recurrent model step by step, and the layout of its state: both found by trial calls.

    A model whose layers only accept sequences receives steps as sequences of one. Episodes start with a
    state of zeros, which must have the same effect as `state=None`.

    Args:
        agent: In eval mode, on its device; `forward(obs, state)` returns `(out, state)`.
        observe: Returns n observations, `[n, *obs.shape]` or a dict of them.

    Attributes:
        by_sequence: Whether the model receives steps as `[n, 1, ...]`.

    Raises:
        ConfigError: If it does not return `(out, state)`, no dimension of the state grows with the batch,
            or zeros are not the initial state.
    """

    def __init__(self, agent: nn.Module, observe: Callable[[int], Any]):
        self.agent, self._name = agent, type(agent).__name__
        observations = [observe(n) for n in (2, 3)]
        self.by_sequence = traits(agent).by_sequence
        try:
            out, state = self._probe(observations)
        except Exception as by_step:
            # torch's layers read [N, features] as one long sequence: try [N, 1, ...].
            self.by_sequence = True
            try:
                out, state = self._probe(observations)
            except ConfigError:
                raise
            except Exception as error:
                if isinstance(by_step, ConfigError):  # It accepts steps only; its state was wrong.
                    raise by_step from None
                if str(by_step) == str(error):
                    raise
                raise ConfigError(
                    f"{self._name}.forward raised {type(by_step).__name__} on one step of observations: "
                    f"{by_step} On sequences of one step, it raised {type(error).__name__}: {error}"
                    f"{about_devices(by_step) or about_devices(error)}"
                ) from by_step
        again = self.step(observations[0], map_leaves(torch.zeros_like, state))[0]
        pairs = zip(leaves(out), leaves(again), strict=True)
        if not all(torch.allclose(a, b, atol=1e-5) for a, b in pairs):
            raise ConfigError(
                f"{self._name}.forward: a state of zeros and state=None lead to different outputs. Episodes "
                "start with zeros: use zeros where state is None."
            )
        self._template = state

    def _probe(self, observations: list[Any]) -> tuple[Any, State]:
        """Find the layout; returns the output and the state of two rows of observations."""
        two, three = (self.step(obs, None) for obs in observations)
        self._layout = find_layout(two[1], three[1], self._name)
        return two

    def step(self, obs: Tensors, state: State) -> tuple[Any, State]:
        """One step of n environments: the output `[n, *action.shape]`, and their next state."""
        if self.by_sequence:
            obs = as_steps(obs)
        result = self.agent(obs, state) if state is not None else self.agent(obs)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise ConfigError(
                f"{self._name}.forward(obs, state) returned a {type(result).__name__}; a recurrent model "
                "returns (out, state)."
            )
        out, state = result
        return first_steps(out) if self.by_sequence else out, state

    def zeros(self, n: int) -> State:
        """The state of n environments at an episode's start."""
        return zeros(self._template, self._layout, n)

    def reset(self, state: State, began: Tensor) -> State:
        """The state, zeroed for the environments in which an episode starts, bool `[n]`."""
        return reset(state, self._layout, began)

    def pack(self, state: State) -> dict[str, Tensor]:
        """The state's tensors by number, each `[n, ...]`, as the replay stores them."""
        return pack(state, self._layout)

    def unpack(self, packed: dict[str, Tensor]) -> State:
        """The state in the structure that `forward` accepts, from the result of `pack`."""
        return unpack(packed, self._template, self._layout)


def find_layout(two: State, three: State, name: str) -> Layout:
    """Which dimension of each tensor is the batch, from states of two and of three rows.

    Args:
        two, three: The states after a step of two and of three rows.
        name: The module's name, for errors.

    Raises:
        ConfigError: If a tensor has no such dimension, or the state holds anything but tensors.
    """

    def dimension(a: Any, b: Any) -> int:
        if not isinstance(a, Tensor):
            raise ConfigError(
                f"{name}.forward: its state holds a {type(a).__name__}; a state must be a tensor, or "
                "tuples, lists and dicts of them."
            )
        grown = [i for i, (x, y) in enumerate(zip(a.shape, b.shape, strict=True)) if x != y]
        if len(grown) != 1 or a.shape[grown[0]] != 2:
            raise ConfigError(
                f"{name}.forward: its state {list(a.shape)} does not grow with the batch. Each "
                "tensor of it needs a dimension of the batch's size, as nn.GRU's [layers, B, hidden]."
            )
        return grown[0]

    return zip_leaves(dimension, two, three)


def zeros(template: State, layout: Layout, n: int) -> State:
    """A state of zeros with n rows, otherwise shaped like `template`."""

    def make(leaf: Tensor, dimension: int) -> Tensor:
        shape = list(leaf.shape)
        shape[dimension] = n
        return leaf.new_zeros(shape)

    return zip_leaves(make, template, layout)


def reset(state: State, layout: Layout, began: Tensor) -> State:
    """The state, zeroed in the rows where `began`, bool `[n]`."""
    return zip_leaves(lambda leaf, d: leaf.masked_fill(_along(began, leaf, d), 0), state, layout)


def select(state: State, layout: Layout, index: Tensor) -> State:
    """Rows of a state by index, int64 `[S]`; -1 selects zeros, the start of an episode."""

    def take(leaf: Tensor, dimension: int) -> Tensor:
        rows = leaf.index_select(dimension, index.clamp(min=0))
        return rows.masked_fill(_along(index < 0, leaf, dimension), 0)

    return zip_leaves(take, state, layout)


def pack(state: State, layout: Layout) -> dict[str, Tensor]:
    """The state's tensors by number, rows first: `{"0": [n, ...], "1": ...}`."""
    pairs = zip(leaves(state), leaves(layout), strict=True)
    return {str(i): leaf.movedim(d, 0) for i, (leaf, d) in enumerate(pairs)}


def unpack(packed: dict[str, Tensor], template: State, layout: Layout) -> State:
    """The inverse of `pack`, structured like `template`. It reads by number, as a dict may be reordered."""
    rows: Iterator[Tensor] = (packed[str(i)] for i in range(len(packed)))
    return zip_leaves(lambda _, d: next(rows).movedim(0, d).contiguous(), template, layout)


def as_steps(obs: Tensors) -> Any:
    """Observations `[N, ...]` as sequences of one step, `[N, 1, ...]`."""
    return map_leaves(lambda x: x.unsqueeze(1), obs)


def first_steps(value: object) -> Any:
    """Sequences of one step, `[N, 1, ...]`, as `[N, ...]`."""
    return map_leaves(lambda x: x.squeeze(1), value)


def map_leaves(function: Callable[[Any], Any], tree: object) -> Any:
    """The tree with `function` applied to every leaf. Unlike in `replay.tree`, tuples and lists nest too."""
    return zip_leaves(lambda leaf, _: function(leaf), tree, tree)


def zip_leaves(function: Callable[[Any, Any], Any], tree: object, other: Any) -> Any:
    """The first tree with `function` applied to its leaves and the matching leaves of the other."""
    if isinstance(tree, (tuple, list)):
        parts = [zip_leaves(function, a, b) for a, b in zip(tree, other, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if isinstance(tree, dict):
        return {key: zip_leaves(function, tree[key], other[key]) for key in tree}
    return function(tree, other)


def leaves(tree: object) -> list[Any]:
    """The leaves of a tree, in order."""
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, (tuple, list)):
        return [leaf for part in tree for leaf in leaves(part)]
    return [tree]


def _along(rows: Tensor, leaf: Tensor, dimension: int) -> Tensor:
    """A mask of rows, `[n]`, shaped to broadcast over a tensor whose rows are in that dimension."""
    shape = [1] * leaf.dim()
    shape[dimension] = -1
    return rows.view(shape)

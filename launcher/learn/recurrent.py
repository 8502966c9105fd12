"""Models that carry a state: found by their forward, probed once, then reset and kept for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...agents.policy.states import State, find_layout, leaves, map_leaves, zip_leaves
from ...agents.traits import takes_state, traits
from ...replay import ConfigError
from ..assembly.device import advice


def is_recurrent(agent: nn.Module) -> bool:
    """Whether `forward` has a parameter `state`: that is the switch.

    An agent made of modules that may have one or not says so itself, in its traits.
    """
    said = traits(agent).recurrent
    return takes_state(agent) if said is None else said


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
        self.by_sequence = traits(agent).by_sequence
        try:
            out, state = self._probe(observations)
        except Exception as by_step:
            # The layers of torch read [N, features] as one long sequence: give them [N, 1, ...].
            self.by_sequence = True
            try:
                out, state = self._probe(observations)
            except ConfigError:
                raise
            except Exception as error:
                if isinstance(by_step, ConfigError):  # It knows steps only, and gave a wrong state.
                    raise by_step from None
                if str(by_step) == str(error):
                    raise
                raise ConfigError(
                    f"{self._name}.forward raised {type(by_step).__name__}, given a step of observations: "
                    f"{by_step} Given sequences of one step, it raised {type(error).__name__}: {error}"
                    f"{advice(by_step) or advice(error)}"
                ) from by_step
        again = self._call(observations[0], map_leaves(torch.zeros_like, state))[0]
        pairs = zip(leaves(out), leaves(again), strict=True)
        if not all(torch.allclose(a, b, atol=1e-5) for a, b in pairs):
            raise ConfigError(
                f"{self._name}.forward: a state of zeros and state=None give different outputs. Episodes "
                "start with zeros: begin with zeros where state is None."
            )
        self._template = state

    def _probe(self, observations: list[Any]) -> tuple[Any, State]:
        """Find the layout out; what two rows of observations give."""
        two, three = (self._call(obs, None) for obs in observations)
        self._layout = find_layout(two[1], three[1], self._name)
        return two

    def _call(self, obs: Any, state: State) -> tuple[Tensor, State]:
        if self.by_sequence:
            obs = map_leaves(lambda x: x.unsqueeze(1), obs)
        result = self.agent(obs, state) if state is not None else self.agent(obs)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise ConfigError(
                f"{self._name}.forward(obs, state) returned a {type(result).__name__}; a recurrent model "
                "returns (out, state)."
            )
        out, state = result
        return map_leaves(lambda x: x.squeeze(1), out) if self.by_sequence else out, state

    def step(self, obs: Any, state: State) -> tuple[Tensor, State]:
        """One step of n environments: out `[n, *action.shape]`, and their next state."""
        return self._call(obs, state)

    def zeros(self, n: int) -> State:
        """The state of n environments at an episode's start."""

        def make(leaf: Tensor, dimension: int) -> Tensor:
            shape = list(leaf.shape)
            shape[dimension] = n
            return leaf.new_zeros(shape)

        return zip_leaves(make, self._template, self._layout)

    def reset(self, state: State, began: Tensor) -> State:
        """The state with zeros for the environments `[n]` where an episode starts."""

        def clear(leaf: Tensor, dimension: int) -> Tensor:
            shape = [1] * leaf.dim()
            shape[dimension] = -1
            return leaf.masked_fill(began.view(shape), 0)

        return zip_leaves(clear, state, self._layout)

    def pack(self, state: State) -> dict[str, Tensor]:
        """As the replay keeps it: tensors `[n, ...]` by number."""
        pairs = zip(leaves(state), leaves(self._layout), strict=True)
        return {str(i): leaf.movedim(d, 0) for i, (leaf, d) in enumerate(pairs)}

    def unpack(self, packed: dict[str, Tensor]) -> State:
        """The reverse of `pack`: what `forward` takes."""
        rows = (packed[str(i)] for i in range(len(packed)))
        return zip_leaves(
            lambda _, d: next(rows).movedim(0, d).contiguous(), self._template, self._layout
        )

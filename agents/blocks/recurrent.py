"""A recurrent layer over sequences that may hold several episodes.

Legend: B sequences, T steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...replay import ConfigError
from ..traits import Traits

State = Any  # A tensor [1, B, hidden]; of an LSTM, two of them.
_KINDS = {"gru": nn.GRU, "lstm": nn.LSTM}


class Recurrent(nn.Module):
    """A GRU or an LSTM and a linear layer, `[B, T, ...]` to `[B, T, out_features]`.

    Cho et al. (2014, arXiv 1406.1078); Hochreiter & Schmidhuber (1997, "Long short-term memory").

    Args:
        in_features: Numbers in one step's observation; inputs are `[B, T, ...]`, flattened.
        out_features: Width of a step's output, float32 `[B, T, out_features]`.
        hidden: Width of the state, float32 `[1, B, hidden]`.
        kind: `gru` or `lstm`.

    Raises:
        ConfigError: If `kind` is neither.
    """

    antelope_traits = Traits(by_sequence=True)  # Steps come as sequences of one.

    def __init__(self, in_features: int, out_features: int, hidden: int = 64, kind: str = "gru"):
        super().__init__()
        if kind not in _KINDS:
            raise ConfigError(f"Recurrent: kind={kind!r} is neither `gru` nor `lstm`.")
        self.memory = _KINDS[kind](in_features, hidden, batch_first=True)
        self.head = nn.Linear(hidden, out_features)

    def forward(
        self, obs: Tensor, state: State | None = None, is_first: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """The output at each step, float32 `[B, T, out_features]`, and the state after the last one.

        Args:
            obs: `[B, T, ...]`.
            state: State before the first step, float32 `[1, B, hidden]`, two of them for `lstm`; None: zeros.
            is_first: Bool `[B, T]`, True where an episode begins: it begins with a state of zeros.
        """
        steps = obs.flatten(2) if obs.dim() > 2 else obs[..., None]
        if is_first is None:
            out, state = self.memory(steps, state)
            return self.head(out), state
        # One call per stretch without a border, not one per step.
        borders = is_first.any(0)[1:].nonzero().flatten().add(1).tolist()
        outs = []
        for start, end in zip([0, *borders], [*borders, steps.shape[1]], strict=True):
            state = _cleared(state, is_first[:, start])
            out, state = self.memory(steps[:, start:end], state)
            outs.append(out)
        return self.head(torch.cat(outs, 1)), state


def _cleared(state: State | None, began: Tensor) -> State | None:
    """The state, zeroed for the sequences in which an episode begins, bool `[B]`."""
    if state is None:
        return None
    if isinstance(state, tuple):
        return tuple(_cleared(part, began) for part in state)
    return state.masked_fill(began[:, None], 0)

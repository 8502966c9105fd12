"""torch's recurrent layers as plain matrix products: `vmap` does not support them, and they hide their steps.

Only for per-row gradients; training and prediction use torch's own layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Linear = Callable[[Tensor, Tensor, Tensor | None], Tensor]
State = tuple[Tensor, ...]
# (the input's part of the gates, state, function that returns the state's part of the gates) -> state
Step = Callable[[Tensor, State, Callable[[Tensor], Tensor]], State]

_VF = torch._C._VariableFunctions


def _gru(gates: Tensor, state: State, recur: Callable[[Tensor], Tensor]) -> State:
    (h,) = state
    reset, update, new = gates.chunk(3, -1)
    reset_h, update_h, new_h = recur(h).chunk(3, -1)
    update = (update + update_h).sigmoid()
    new = (new + (reset + reset_h).sigmoid() * new_h).tanh()
    return (new + update * (h - new),)


def _lstm(gates: Tensor, state: State, recur: Callable[[Tensor], Tensor]) -> State:
    h, c = state
    enter, forget, new, leave = (gates + recur(h)).chunk(4, -1)
    c = forget.sigmoid() * c + enter.sigmoid() * new.tanh()
    return leave.sigmoid() * c.tanh(), c


def _tanh(gates: Tensor, state: State, recur: Callable[[Tensor], Tensor]) -> State:
    return ((gates + recur(state[0])).tanh(),)


def _relu(gates: Tensor, state: State, recur: Callable[[Tensor], Tensor]) -> State:
    return ((gates + recur(state[0])).relu(),)


_LAYERS: dict[Any, Step] = {
    _VF.gru: _gru,
    _VF.lstm: _lstm,
    _VF.rnn_tanh: _tanh,
    _VF.rnn_relu: _relu,
}
_CELLS: dict[Any, Step] = {
    _VF.gru_cell: _gru,
    _VF.lstm_cell: _lstm,
    _VF.rnn_tanh_cell: _tanh,
    _VF.rnn_relu_cell: _relu,
}


def written_out(function: Any, args: tuple[Any, ...], linear: Linear) -> Any:
    """The result of torch's recurrent functions, computed with plain products; None for other functions.

    Args:
        function: The function that a forward called.
        args: Its arguments.
        linear: Called for each product, with inputs `[B, T, F]` or `[B, F]`.
    """
    if (step := _CELLS.get(function)) is not None:
        return _cell(step, args, linear)
    step = _LAYERS.get(function)
    # Packed sequences have their weights one argument later, and mix the rows of all sequences.
    if step is None or len(args) != 9 or isinstance(args[3], (list, tuple)):
        return None
    x, state, weights, biases, layers, dropout, training, bidirectional, batch_first = args
    if training and dropout:
        return None
    states = state if isinstance(state, (list, tuple)) else (state,)
    out = x if batch_first else x.transpose(0, 1)
    ends: list[State] = []
    directions = 2 if bidirectional else 1
    size = len(weights) // (layers * directions)
    for layer in range(layers):
        found = []
        for direction in range(directions):
            number = layer * directions + direction
            own = weights[number * size : (number + 1) * size]
            start = tuple(part[number] for part in states)
            outputs, end = _over_time(step, out, start, own, biases, linear, back=direction == 1)
            found.append(outputs)
            ends.append(end)
        out = torch.cat(found, -1) if bidirectional else found[0]
    last = [torch.stack(parts) for parts in zip(*ends, strict=True)]
    return (out if batch_first else out.transpose(0, 1), *last)


def _over_time(
    step: Step,
    x: Tensor,
    state: State,
    weights: list[Tensor],
    biases: bool,
    linear: Linear,
    *,
    back: bool,
) -> tuple[Tensor, State]:
    """One layer in one direction: outputs `[B, T, H]` for `x`, `[B, T, F]`, and the last state."""
    w_input, w_state = weights[:2]
    b_input, b_state = weights[2:4] if biases else (None, None)
    w_output = weights[-1] if len(weights) % 2 else None  # Of an LSTM with `proj_size`.
    gates = linear(x, w_input, b_input).unbind(1)
    outputs = []
    for of_step in reversed(gates) if back else gates:
        h, *others = step(of_step, state, lambda h: linear(h, w_state, b_state))
        if w_output is not None:
            h = linear(h, w_output, None)
        state = (h, *others)
        outputs.append(h)
    return torch.stack(outputs[::-1] if back else outputs, 1), state


def _cell(step: Step, args: tuple[Any, ...], linear: Linear) -> Any:
    x, state, w_input, w_state, b_input, b_state = (*args, None, None)[:6]
    state = tuple(state) if isinstance(state, (list, tuple)) else (state,)
    gates = linear(x, w_input, b_input)
    found = step(gates, state, lambda h: linear(h, w_state, b_state))
    return found if len(found) > 1 else found[0]


class _WrittenOut(TorchFunctionMode):
    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = None if kwargs else written_out(function, args, F.linear)
        return function(*args, **kwargs or {}) if found is None else found


@contextmanager
def vectorisable() -> Iterator[None]:
    """Runs the block with recurrent layers that `vmap` supports."""
    with _WrittenOut():
        yield

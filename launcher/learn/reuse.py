"""Whether a strategy has been through another run, and has kept something of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...agents.continual.context import Context
from ...agents.continual.strategy import Strategy
from ...agents.traits import hook
from ..record.state import Look

# A strategy without any of these looks on, as far as one can tell: what it has kept is its record.
_LEARNS = ("before_batch", "after_loss", "after_backward", "predict", "parameters_changed")


def holds(strategy: Any, agent: nn.Module) -> Any:
    """What a strategy holds now, the agent aside, to be compared with later; nothing is copied."""
    return Held.beside(agent)(strategy, "strategy")


def leftover(strategy: Any) -> bool:
    """Whether a strategy has learnt in a run before, and does not hold what it began that run with."""
    context = getattr(strategy, "context", None)
    if not isinstance(context, Context) or id(strategy) not in context.began:
        return False
    return bool(context.began[id(strategy)] != holds(strategy, context.agent))


def told_of_leftovers(used: Iterable[tuple[str, Any]]) -> tuple[list[str], list[str]]:
    """The errors and the warnings of strategies that bring something along from another run."""
    errors, warnings = [], []
    for name, strategy in used:
        if isinstance(strategy, Strategy) or any(hook(strategy, one) for one in _LEARNS):
            errors.append(
                f"strategy={name} is an object that has learnt in another run, and still holds what it kept "
                "there. Construct it again for each run, or give its class. (Data that comes later is "
                "learnt by run.learn_task; an interrupted run goes on with resume=true.)"
            )
        else:
            warnings.append(
                f"strategy={name} is an object of another run, and goes on with what it recorded there."
            )
    return errors, warnings


class _Version:
    """A tensor and how often it was written to; the tensor is held, so that no other takes its place."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor
        self.written = 0 if tensor.is_inference() else tensor._version

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Version):
            return NotImplemented
        return self.tensor is other.tensor and self.written == other.written

    __hash__ = None  # type: ignore[assignment]


class Held(Look):
    """What an object holds, all the way down; no `state_dict` is called, of the user's or of ours."""

    def _object(self, value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            return {"$tensor": _Version(value)}
        if isinstance(value, np.ndarray):
            return {"$array": (value.shape, hash(value.tobytes()))}
        if isinstance(value, torch.Generator):
            return {"$generator": value.get_state().numpy().tobytes()}
        if isinstance(value, np.random.Generator):
            return {"$numpy": repr(value.bit_generator.state)}
        if isinstance(value, np.random.RandomState):
            return {"$numpy": repr(value.get_state())}
        if isinstance(value, nn.Module):
            tensors = {n: _Version(t) for n, t in value.named_parameters()}
            tensors |= {n: _Version(t) for n, t in value.named_buffers()}
            return {"$weights": tensors, **super()._object(value, path)}
        if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
            return self._fields(value, path)
        return super()._object(value, path)

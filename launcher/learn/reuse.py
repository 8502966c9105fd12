"""Finds strategies that still hold something from another run."""

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

# A strategy without any of these only observes, so what it holds is a record of the run.
_LEARNS = ("before_batch", "after_loss", "after_backward", "predict", "parameters_changed")


def holds(strategy: object, agent: nn.Module) -> Any:
    """What a strategy holds now, except for the agent, for later comparison; tensors are not copied."""
    return Held.beside(agent)(strategy, "strategy")


def leftover(strategy: object) -> bool:
    """Whether a strategy has learnt in an earlier run, and holds other things than at its start."""
    context = getattr(strategy, "context", None)
    if not isinstance(context, Context) or id(strategy) not in context.began:
        return False
    return bool(context.began[id(strategy)] != holds(strategy, context.agent))


def told_of_leftovers(used: Iterable[tuple[str, Any]]) -> tuple[list[str], list[str]]:
    """Errors and warnings about strategies that still hold something from another run."""
    errors, warnings = [], []
    for name, strategy in used:
        if isinstance(strategy, Strategy) or any(hook(strategy, one) for one in _LEARNS):
            errors.append(
                f"strategy={name} is an object that has learnt in another run, and still holds what it kept "
                "there. Construct one for each run, or give its class. (To learn data that arrives later, "
                "call run.learn_task; to continue an interrupted run, set resume=true.)"
            )
        else:
            warnings.append(
                f"strategy={name} comes from another run, and continues with what it recorded there."
            )
    return errors, warnings


class _Version:
    """A tensor and how often it was written to. Holding it keeps its identity from being reused."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor
        self.written = 0 if tensor.is_inference() else tensor._version

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Version):
            return NotImplemented
        return self.tensor is other.tensor and self.written == other.written

    __hash__ = None  # type: ignore[assignment]


class Held(Look):
    """What an object holds, recursively. It calls no `state_dict`, neither the user's nor Antelope's."""

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

"""A checkpoint's weights, loaded into a model that may have to grow first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ...replay import CheckpointError
from ..learn.growth import begin_task, regrow
from .state import add_copies, fill_empty_buffers, load_in_place


def load_weights(
    agent: nn.Module,
    weights: dict[str, Tensor],
    places: dict[str, str] | None = None,
    changed: dict[str, Any] | None = None,
    *,
    before: Callable[[int], None] | None = None,
) -> None:
    """Load a checkpoint's weights.

    Args:
        places: Where buffers were, as of `fill_empty_buffers`.
        changed: Which modules have come since the model was constructed, as of `grown`.
        before: Called before each task that the model begins again to get them.

    Raises:
        CheckpointError: Naming what is missing, left over, or of another shape.
    """

    def begin(task: int) -> None:
        if before is not None:
            before(task)
        begin_task(agent, task)

    regrow(agent, changed, begin=begin)
    fill_empty_buffers(agent, weights, places)
    add_copies(agent, weights)
    own = agent.state_dict()
    problems = [f"`{name}` is missing" for name in own if name not in weights]
    problems += [
        f"`{name}` is not in {type(agent).__name__}" for name in weights if name not in own
    ]
    problems += [
        f"`{name}` is {list(weights[name].shape)}, the model's is {list(own[name].shape)}"
        for name in own
        if name in weights
        and isinstance(own[name], Tensor)
        and weights[name].shape != own[name].shape
    ]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(
            f"The checkpoint does not fit {type(agent).__name__}: "
            f"{'; '.join(problems[:3])}{more}. It was saved from a model that was constructed "
            "differently."
        )
    load_in_place(agent, weights)

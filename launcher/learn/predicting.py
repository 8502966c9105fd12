"""A learner's output for rows: by its strategies, its `forward` or its `act`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...agents.traits import needs_info
from .infos import Info
from .learner import Learner


def predicted(learner: Learner, obs: Any, task: int | None) -> Tensor | None:
    """Logits or values `[B, *action.shape]`, or the classes `[B]` that `act` chooses.

    Args:
        obs: `[B, *obs.shape]`, as the model receives them.
        task: Their task, where the model may know it.

    Returns:
        None for a model that makes no predictions.
    """
    output = learner.predict(obs, task)
    if output is None and (act := learner.traits.act) is not None:
        action = act(obs, info=Info()) if needs_info(act) else act(obs)
        output = action[0] if isinstance(action, tuple) else action
    return output

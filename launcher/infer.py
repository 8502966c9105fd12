"""What a constructor can ask for by the name of a parameter: one table."""

from __future__ import annotations

from math import prod
from typing import Any

import torch

from ..replay import Spec


def inferred(spec: Spec, *, device: torch.device) -> dict[str, Any]:
    """Parameter names and the values that the spec gives them; a dict of spaces has no one shape."""
    table: dict[str, Any] = {"spec": spec, "obs_spec": spec.obs, "action_spec": spec.action}
    table |= {"num_tasks": spec.num_tasks, "device": device}
    if not isinstance(spec.obs, dict):
        obs = spec.obs.shape
        table |= dict.fromkeys(("in_features", "in_dim", "input_dim", "obs_dim"), prod(obs))
        table |= dict.fromkeys(("in_channels",), obs[0] if obs else 1)
        table |= dict.fromkeys(("in_shape", "input_shape", "obs_shape"), obs)
    if not isinstance(spec.action, dict):
        action = spec.action.shape
        table |= dict.fromkeys(
            ("out_features", "out_dim", "output_dim", "out_channels", "num_classes", "num_actions"),
            prod(action),
        )
        table |= dict.fromkeys(("out_shape", "output_shape", "action_shape"), action)
        table["discrete"] = spec.action.discrete
    return table

"""A `Spec` as plain data, so that a run can be loaded without its data set or environment."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch

from ...replay import Space, Spec
from ...replay.scale import Scale


def spec_state(spec: Spec) -> dict[str, Any]:
    """Describe a spec for a checkpoint, in plain data and tensors."""
    return {
        "obs": _space_state(spec.obs),
        "action": _space_state(spec.action),
        "num_tasks": spec.num_tasks,
    }


def spec_from(state: dict[str, Any]) -> Spec:
    """The spec that `spec_state` described."""
    return Spec(_space_from(state["obs"]), _space_from(state["action"]), state["num_tasks"])


def _space_state(space: Any) -> dict[str, Any]:
    if isinstance(space, dict):
        # As pairs: a name may be any text, and their order is the model's.
        return {"parts": [[name, _space_state(part)] for name, part in space.items()]}
    state = {field.name: getattr(space, field.name) for field in fields(Space)}
    scale = state["scale"]
    if scale is not None:
        state["scale"] = {field.name: getattr(scale, field.name) for field in fields(Scale)}
    return {**state, "dtype": str(space.dtype).removeprefix("torch.")}


def _space_from(state: dict[str, Any]) -> Any:
    if "parts" in state:
        return {name: _space_from(part) for name, part in state["parts"]}
    known = {field.name for field in fields(Space)}
    values = {name: value for name, value in state.items() if name in known}
    values["dtype"] = getattr(torch, state["dtype"])
    values["shape"] = tuple(state["shape"])
    if (scale := state.get("scale")) is not None:
        values["scale"] = Scale(**scale)
    return Space(**values)

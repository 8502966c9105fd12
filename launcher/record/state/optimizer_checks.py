"""Checks the states of torch's optimisers and schedulers in a checkpoint, before they are loaded."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer

from ....replay import CheckpointError
from ....replay.structure import Foreign, is_dict, misfit
from .assigned import hides


def check_optimizer(optimizer: Optimizer, state: Foreign, path: str) -> None:
    """Check an optimiser's state: its groups, and the shapes of what it keeps for each parameter.

    Raises:
        CheckpointError: Naming what is wrong.
    """
    if not is_dict(state) or not {"state", "param_groups"} <= state.keys():
        misfit(path, state, "the state of an optimiser")
    groups = state["param_groups"]
    if not isinstance(groups, list) or not isinstance(state["state"], dict):
        misfit(path, state, "the state of an optimiser")
    owned = [p for group in optimizer.param_groups for p in group["params"]]
    numbers: list[int] = []
    options = optimizer.param_groups[0] if optimizer.param_groups else {}
    for i, group in enumerate(groups):
        if not is_dict(group) or not isinstance(group.get("params"), list):
            misfit(f"{path}.param_groups[{i}]", group, "a group with its `params`")
        numbers += group["params"]
        if "lr" in options and "lr" not in group:
            raise CheckpointError(f"The checkpoint's `{path}.param_groups[{i}]` lacks `lr`.")
        for key, value in group.items():
            if key in options and key not in ("params", "param_names"):
                _check_option(options[key], value, f"{path}.param_groups[{i}].{key}")
    if len(numbers) != len(owned) or not type(optimizer).__module__.startswith("torch.optim."):
        return  # Its own `load_state_dict` compares the groups, and says what differs.
    if not _elementwise(optimizer):
        return
    for i, parameter in zip(numbers, owned, strict=True):
        kept = state["state"].get(i, {})
        if not is_dict(kept):
            misfit(f"{path}.state[{i}]", kept, "what is kept for a parameter")
        for name, value in kept.items():
            shape = list(value.shape) if isinstance(value, Tensor) else []
            if shape not in ([], list(parameter.shape)):
                misfit(f"{path}.state[{i}].{name}", value, f"shape {list(parameter.shape)}")


def _elementwise(optimizer: Optimizer) -> bool:
    """Whether all that it keeps has the shape of a parameter, or is a number."""
    return type(optimizer).__name__ not in ("LBFGS", "Adafactor", "SparseAdam")


def _check_option(here: object, value: Foreign, path: str) -> None:
    """An option of an optimiser: a number stays a number, a flag may be undecided."""
    if isinstance(here, Tensor) or isinstance(value, Tensor):
        if isinstance(value, Tensor) and value.numel() != 1:
            misfit(path, value, "a number")
    elif isinstance(here, (bool, type(None))):
        if not isinstance(value, (bool, int, float, type(None))):
            misfit(path, value, "true, false or none")
    elif isinstance(here, (int, float)):
        if not isinstance(value, (int, float)):
            misfit(path, value, "a number")
    elif isinstance(here, tuple) and (
        not isinstance(value, (list, tuple)) or len(value) != len(here)
    ):
        misfit(path, value, f"{len(here)} numbers")


def check_scheduler(scheduler: Foreign, state: Foreign, path: str) -> None:
    """Check the state of one of torch's schedulers, which becomes its attributes.

    Raises:
        CheckpointError: Naming an attribute that it does not have.
    """
    if not is_dict(state) or not all(isinstance(name, str) for name in state):
        misfit(path, state, "a dict")
    for name, value in state.items():
        if hides(scheduler, name) or (name.startswith("__") and name.endswith("__")):
            raise CheckpointError(f"The checkpoint would replace `{path}.{name}`, a method.")
        here = vars(scheduler).get(name)
        if isinstance(here, (int, float)) and not isinstance(value, (int, float, Tensor)):
            misfit(f"{path}.{name}", value, "a number")

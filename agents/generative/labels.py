"""Labels that condition generation: the classes of a model's data set."""

from __future__ import annotations

import torch
from torch import Tensor

from ...replay import ConfigError, Space


def classes(action_spec: Space | None, agent: str, *, conditional: bool) -> int:
    """The number of classes to generate by; 0 for a model that is not conditional.

    Raises:
        ConfigError: If the data set has no classes; it names the agent.
    """
    if not conditional:
        return 0
    if isinstance(action_spec, Space) and action_spec.discrete and not action_spec.value_shape:
        return action_spec.n
    given = "none were given" if action_spec is None else f"these are {action_spec}"
    raise ConfigError(
        f"{agent} with conditional=true generates by classes, and {given}. Set conditional=false, or "
        "learn from a data set with integer targets."
    )


def labels(
    label: Tensor | int | None, n: int, num_classes: int, device: torch.device
) -> Tensor | None:
    """The label of each of n samples, int64 `[n]`; drawn uniformly if `label` is None.

    Returns:
        None if the model is not conditional.

    Raises:
        ConfigError: If `label` is not one class, or one for each sample.
    """
    if num_classes == 0:
        if label is None:
            return None
        raise ConfigError("Labels need a model built with conditional=true; this one was not.")
    if label is None:
        return torch.randint(num_classes, (n,), device=device)
    label = torch.as_tensor(label, device=device)
    whole = not label.is_floating_point() and label.shape in ((), (n,))
    if not whole or (label.numel() and not 0 <= label.min() <= label.max() < num_classes):
        raise ConfigError(
            f"Labels for {n} samples must be one integer, or a tensor of {n}, from 0 to "
            f"{num_classes - 1}; got {label!r:.60}."
        )
    return label.long().expand(n)

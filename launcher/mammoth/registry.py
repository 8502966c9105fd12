"""What can be asked for by a name of Mammoth's: models, data sets."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from ...replay import ConfigError
from ..config import name_of

T = TypeVar("T")

_CROP_AND_FLIP = [{"_target_": "RandomCrop", "padding": 4}, "RandomHorizontalFlip"]
DATASETS: dict[str, dict[str, Any]] = {
    "seq-mnist": {"dataset": "MNIST", "tasks": 5, "standardize": False},
    "seq-cifar10": {"dataset": "CIFAR10", "tasks": 5, "aug": _CROP_AND_FLIP},
    "seq-cifar100": {"dataset": "CIFAR100", "tasks": 10, "aug": _CROP_AND_FLIP},
    "perm-mnist": {"dataset": "PermutedMNIST", "tasks": 20, "standardize": False},
    "rot-mnist": {"dataset": "RotatedMNIST", "tasks": 20, "standardize": False},
    "seq-digits": {"dataset": "Digits", "tasks": 5, "standardize": False},
}
MODELS: dict[str, Any] = {}


def register_model(name: str) -> Callable[[T], T]:
    """Make a class known to `load_runner` by a name, in which `_` is as good as `-`.

    Raises:
        ConfigError: If the name is taken by another class.
    """
    key = name.replace("_", "-")

    def keep(model: T) -> T:
        taken = MODELS.get(key)
        if taken is not None and name_of(taken) != name_of(model):
            raise ConfigError(f"The name `{name}` is registered already, by {name_of(taken)}.")
        MODELS[key] = model
        if inspect.isclass(model) and not hasattr(model, "NAME"):
            model.NAME = name  # type: ignore[attr-defined]
        return model

    return keep

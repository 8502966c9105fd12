"""The arguments of `loss=`, with class weights as tensors: those given, and those counted in the data."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...envs.table_world import TableWorld
from ...replay import ConfigError, Space
from ..settings.named import Named
from .torch_losses import is_torch

BALANCED = "balanced"


def with_weights(named: Named, world: TableWorld, device: torch.device) -> dict[str, Any]:
    """The sub-keys of `loss=`, with `weight` and `pos_weight` as float32 tensors on the device.

    `weight=balanced` is `N / (k count)` for each of the k classes that occur (King & Zeng, 2001, as in
    scikit-learn), and `pos_weight=balanced` the number of zeros for each one in a column. Both are counted
    in the training rows of all tasks together. For pixels, ignored ones are not counted, and a loss with a
    parameter `ignore_index` ignores them.

    Raises:
        ConfigError: If there are too many weights or too few, or there is nothing to balance.
    """
    arguments, space = dict(named.arguments), world.spec.action
    for key in {"weight", "pos_weight"} & arguments.keys():
        value = arguments[key]
        if value == BALANCED if isinstance(value, str) else False:
            arguments[key] = _balanced(key, world).to(device)
        elif isinstance(value, str):
            raise ConfigError(
                f"loss.{key}={value}: give {key}=balanced, or a list of {space.n} numbers."
            )
        elif is_torch(named.target) and value is not None:
            arguments[key] = _checked(key, value, space, world).to(device)
    ignores = "ignore_index" in _parameters(named.target) and named.constructs
    if space.kind == "pixels" and ignores and "ignore_index" not in _held(named.target):
        arguments.setdefault("ignore_index", space.ignored)
    return arguments


def _checked(key: str, value: Any, space: Space, world: TableWorld) -> Tensor:
    """Given weights as float32; raises if their number is not that of the classes."""
    try:
        weights = torch.as_tensor(value, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"loss.{key}={value!r:.60} is not a list of numbers: {error}") from error
    if weights.dim() != 1 or len(weights) != space.n:
        what = "labels" if space.kind == "labels" else "classes"
        raise ConfigError(
            f"loss.{key} has shape {list(weights.shape)}, but {world.name} has {space.n} {what}: give one "
            f"number for each, or loss.{key}=balanced."
        )
    if bool((weights < 0).any()) or not bool(torch.isfinite(weights).all()):
        raise ConfigError(
            f"loss.{key}={value!r:.60} holds negative or infinite numbers; weights are 0 or more."
        )
    return weights


def _balanced(key: str, world: TableWorld) -> Tensor:
    """Weights counted in the training rows, float32 `[n]`."""
    space = world.spec.action
    if key == "pos_weight":
        if space.kind != "labels":
            raise ConfigError(
                "loss.pos_weight=balanced is for several labels per row (0 or 1 in K columns). For classes, "
                "set loss.weight=balanced."
            )
        rows, ones = 0, torch.zeros(space.n, dtype=torch.float64)
        for label in world.training_labels():
            rows, ones = rows + len(label), ones + label.to(torch.float64).sum(0)
        # A column without a one, or without a zero, has nothing to be balanced.
        ratio = torch.where((ones > 0) & (ones < rows), (rows - ones) / ones, 1.0)
        return ratio.float()
    if space.kind not in ("classes", "pixels"):
        more = " Set loss.pos_weight=balanced." if space.kind == "labels" else ""
        raise ConfigError(
            f"loss.weight=balanced balances classes, and the targets of {world.name} are "
            f"{'several labels per row' if space.kind == 'labels' else 'values'}.{more}"
        )
    counts = torch.zeros(space.n, dtype=torch.float64)
    for label in world.training_labels():
        found = label.flatten().long()
        if space.kind == "pixels":
            found = found[found != space.ignored]
        counts += found.bincount(minlength=space.n)
    occurs = counts > 0
    weights = counts.sum() / (occurs.sum() * counts)
    # Outputs kept for later classes: an infinite weight would be of no use to them either.
    return torch.where(occurs, weights, 1.0).float()


def _parameters(target: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):
        return {}


def _held(target: object) -> Mapping[str, Any]:
    return target.keywords if isinstance(target, functools.partial) else {}

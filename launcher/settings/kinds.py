"""Kinds of models and data that a separate wing of the launcher handles, recognised by a method.

A model with `observe` and without `learn`, or a data set with `get_data_loaders`, is checked and built by
the wing that registers its kind here. The wing is imported when something of the kind is first named, so
that no other run pays for it, and nothing outside it names it anywhere but in this table.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from ...envs.table_world import TableWorld

# The module that registers a kind when it is imported, by the method that such a class has.
_MODEL_WINGS = {"observe": "..mammoth.kinds"}
_DATA_WINGS = {"get_data_loaders": "..mammoth.kinds"}


@dataclass(frozen=True)
class ModelKind:
    """Models that learn in a method of their own.

    Attributes:
        mistakes: `mistakes(target, arguments)`, where `target` is the class and `arguments` are its
            sub-keys (`model.KEY=...`): a message for each argument that is unknown, invalid or missing.
        build: `build(target, arguments, plan, world, device, *, transforms, epochs, network)`, where
            `target` is the class or the object: the module that learns in its place. Its `own` is the
            user's module.
    """

    mistakes: Callable[[object, Mapping[str, object]], list[str]]
    build: Callable[..., nn.Module]


@dataclass(frozen=True)
class DataKind:
    """Data sets that bring their own tasks, transforms and held-out rows.

    Attributes:
        includes: Whether a class or an object that has the method belongs to the kind.
        build: `build(target, arguments, plan)`: the world of a run that learns from it.
    """

    includes: Callable[[object], bool]
    build: Callable[..., TableWorld]


_MODELS: dict[str, ModelKind] = {}
_DATA: dict[str, DataKind] = {}


def register_model_kind(method: str, kind: ModelKind) -> None:
    """Let models that have this method, and no `learn`, be checked and built by `kind`."""
    _MODELS[method] = kind


def register_data_kind(method: str, kind: DataKind) -> None:
    """Let data sets that have this method be built by `kind`, as far as it includes them."""
    _DATA[method] = kind


def model_kind(target: object) -> ModelKind | None:
    """The kind that a model, or its class, belongs to; None for one that learns by `learn` or `forward`."""
    from ...agents.traits import hook  # It imports torch, and names are also read without it.

    if hook(target, "learn") is not None:
        return None
    method = next((m for m in {**_MODEL_WINGS, **_MODELS} if hook(target, m) is not None), None)
    if method is None:
        return None
    if method not in _MODELS:
        importlib.import_module(_MODEL_WINGS[method], __package__)
    return _MODELS[method]


def data_kind(target: object) -> DataKind | None:
    """The kind that a data set, or its class, belongs to; None for arrays and torch's data sets."""
    method = next((m for m in {**_DATA_WINGS, **_DATA} if hasattr(target, m)), None)
    if method is None:
        return None
    if method not in _DATA:
        importlib.import_module(_DATA_WINGS[method], __package__)
    kind = _DATA[method]
    return kind if kind.includes(target) else None

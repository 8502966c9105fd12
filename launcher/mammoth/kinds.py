"""Registers the two kinds of Mammoth's code: models with `observe`, data sets with `get_data_loaders`.

Imported by `settings/kinds.py` when a run names one of them. The modules that check and build are imported
when they are called: checking a model's options must not import every network.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..settings.kinds import DataKind, ModelKind, register_data_kind, register_model_kind

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ...envs.table_world import TableWorld
    from ...envs.transform import Transform
    from ..settings.plan import Plan
    from .building import MakeNetwork
    from .tasks.sequence import ContinualDataset
    from .tasks.world import SequenceWorld


def _mistakes(target: object, arguments: Mapping[str, object]) -> list[str]:
    from .options import Options

    return Options(target, arguments).mistakes


def _build_model(
    target: object,
    arguments: Mapping[str, object],
    plan: Plan,
    world: TableWorld,
    device: torch.device,
    *,
    transforms: tuple[Transform, Transform],
    epochs: int | None,
    network: MakeNetwork,
) -> nn.Module:
    from .building import build_observer

    return build_observer(
        target,
        arguments,
        plan,
        world,
        device,
        transforms=transforms,
        epochs=epochs,
        network=network,
    )


def _has_its_own_data(target: object) -> bool:
    """Whether a class, or an object, is a `ContinualDataset` that defines `get_data_loaders`."""
    from .tasks.sequence import ContinualDataset

    return issubclass(target if inspect.isclass(target) else type(target), ContinualDataset)


def _build_data(
    target: type[ContinualDataset] | ContinualDataset, arguments: dict[str, object], plan: Plan
) -> SequenceWorld:
    from .tasks.world import SequenceWorld

    return SequenceWorld(target, plan, arguments)


register_model_kind("observe", ModelKind(_mistakes, _build_model))
register_data_kind("get_data_loaders", DataKind(_has_its_own_data, _build_data))

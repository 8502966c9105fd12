"""Mammoth's networks by name."""

from __future__ import annotations

import inspect
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from torch import nn

from ...replay import ConfigError
from ..settings.compose import did_you_mean
from .backbones import (mnistmlp, reduced_resnet18, resnet18, resnet34)
from .progressive import (mnistmlp_pnn, resnet18_pnn)

BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "mnistmlp": mnistmlp,
    "resnet18": resnet18,
    "reduced-resnet18": reduced_resnet18,
    "resnet34": resnet34,
    "mnistmlp-pnn": mnistmlp_pnn,
    "resnet18-pnn": resnet18_pnn,
}


def get_backbone(args: Namespace) -> nn.Module:
    """A new network, as described by `args`.

    Args:
        args: `backbone`, a registered name, and the arguments of its network, such as `num_classes`.
            A run's own `args` are sufficient, whatever its network.

    Raises:
        ConfigError: If the name is unknown, or `args` lacks what it needs.
    """
    if (make := getattr(args, "make_backbone", None)) is not None:
        made: nn.Module = make()
        return made
    return named_backbone(args.backbone, vars(args))


def named_backbone(name: str, values: dict[str, Any]) -> nn.Module:
    """A new network registered under this name; `_` and `-` are equivalent.

    Args:
        values: Its arguments, among others.
    """
    key = name.replace("_", "-").lower()
    if key not in BACKBONES:
        near = did_you_mean(key, BACKBONES)
        raise ConfigError(
            f"No backbone `{name}` is registered.{near} There are: {', '.join(BACKBONES)}."
        )
    parameters = inspect.signature(BACKBONES[key]).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if missing := [p.name for p in named if p.default is p.empty and p.name not in values]:
        raise ConfigError(f"Backbone {name} needs {', '.join(missing)}, missing from args.")
    return BACKBONES[key](**{p.name: values[p.name] for p in named if p.name in values})

"""Networks from a class or a library's function, constructed from the shapes of inputs and outputs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ...agents.vision import fit_to_images, headless, vision_arguments
from ...replay import ConfigError
from ..settings.construct import construct
from ..settings.object_names import class_name, name_of


def network(
    target: Any,
    arguments: dict[str, Any],
    table: dict[str, Any],
    obs: Any,
    *,
    setting: str = "model",
    instead: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """`target` constructed; networks of torchvision and timm are adapted to the images.

    As an encoder, these lose their last layer.

    Args:
        arguments: The user's arguments, which take precedence over inferred ones.
        table: Values that can be inferred, by parameter name (see `inferred`).
        obs: The space of its inputs, or a dict of spaces.
        setting: The setting that names it, for errors.
        instead: Advice for parameters that cannot be inferred, by name.

    Raises:
        ConfigError: If it cannot be constructed.
    """
    if not callable(target):
        raise ConfigError(f"{setting}={name_of(target)} is neither a class nor a torch.nn.Module.")
    if inspect.isclass(target) or not name_of(target).startswith(("torchvision.models.", "timm.")):
        return construct(target, arguments, table, setting=setting, instead=instead)
    # These builders take the number of classes among **kwargs.
    told = {"num_classes": table["num_classes"], **vision_arguments(target, obs)}
    built = construct(target, {**told, **arguments}, {}, setting=setting)
    built = fit_to_images(built, obs, class_name(target))
    return headless(built) if setting == "encoder" else built

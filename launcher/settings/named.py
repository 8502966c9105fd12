"""An object that a setting names, with its arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from .construct import construct
from .object_names import makes_objects


@dataclass(frozen=True)
class Named:
    """An object that a setting names, before it is built.

    Attributes:
        setting: Which one: `optim`.
        target: The class, function or object that was found; a `Path` for a folder of images.
        arguments: Its sub-keys, with their Python values. Classes named inside them are found too.
        name: What it is recorded as: `torch.optim.sgd.SGD`.
    """

    setting: str
    target: Any
    arguments: dict[str, Any]
    name: str

    @property
    def constructs(self) -> bool:
        """Whether the target is called to get the object, or is the object."""
        return makes_objects(self.target)

    @property
    def short_name(self) -> str:
        """`Model` of `model.py:Model`, `resnet18` of `torchvision.models.resnet.resnet18`."""
        return re.split(r"[.:]", self.name)[-1]

    def build(
        self,
        inferred: Mapping[str, Any] = MappingProxyType({}),
        *,
        positional: tuple[Any, ...] = (),
        instead: Mapping[str, str] = MappingProxyType({}),
    ) -> Any:
        """The object: what the target returns for these arguments, or the target itself.

        Args:
            inferred: Values by parameter name, for parameters that the target has; sub-keys win.
            positional: Arguments that come first, such as an optimiser's parameters.
            instead: Why a parameter cannot be inferred here, and what can.

        Raises:
            ConfigError: For an unknown or missing argument, or a constructor that raises.
        """
        if not self.constructs:
            return self.target
        return construct(
            self.target,
            self.arguments,
            inferred,
            setting=self.setting,
            positional=positional,
            instead=instead,
        )

"""An object that a setting names, with its arguments."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .object_names import makes_objects


@dataclass(frozen=True)
class Named:
    """An object that a setting names.

    Attributes:
        setting: Which one: `optim`.
        target: The class, function or object that was found; a `Path` for a folder of images.
        arguments: Its sub-keys, with their Python values.
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

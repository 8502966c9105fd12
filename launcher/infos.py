"""The fields of `info` as a model's `act` receives them."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..replay import ConfigError
from ..replay.transfer import upload
from ..replay.transitions import nested


class Info(dict[str, Any]):
    """Tensors `[N, ...]` by the names in `env_info`, dicts of them where the environment gives dicts.

    Raises:
        ConfigError: When asked for a field that is not among them.
    """

    @classmethod
    def of(cls, rows: dict[str, np.ndarray] | None, device: torch.device) -> Info:
        """Those of arrays, on `device`; None: there are none."""
        if not rows:
            return cls()
        tensors: dict[str, Tensor] = {n: torch.from_numpy(array) for n, array in rows.items()}
        if device.type != "cpu":
            tensors = upload(tensors, device)
        return cls(nested(tensors))

    def __missing__(self, name: str) -> Any:
        there = ", ".join(f"`{key}`" for key in self) or "nothing"
        raise ConfigError(
            f"`act` asks for info[{name!r}], and info holds {there}. Name the fields that it needs: "
            f"env_info=[{name}]."
        )


def needs_info(act: Any) -> bool:
    """Whether an `act` cannot be called without `info`."""
    try:
        parameter = inspect.signature(act).parameters.get("info")
    except (TypeError, ValueError):
        return False
    return parameter is not None and parameter.default is parameter.empty

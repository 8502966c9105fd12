"""Shapes and dtypes of the fields of `info`, and whether they belong to observations or to steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..replay.field_names import IN
from .info_values import InfoFault, type_in_words


@dataclass
class Layout:
    """Shapes and dtypes of the fields, the same for all environments of a run.

    Attributes:
        types: Shape and dtype of each field that has appeared so far.
        with_obs: Fields that `reset` returns too, so that they belong to the observation; None: no
            environment has been reset yet. Other fields belong to the step, like its reward.
        settled: Whether rows have been stored, so that dtypes are fixed.
    """

    types: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = field(default_factory=dict)
    with_obs: tuple[str, ...] | None = None
    settled: bool = False

    def state_dict(self) -> dict[str, Any]:
        types = [[name, list(shape), dtype.str] for name, (shape, dtype) in self.types.items()]
        return {"types": types, "with_obs": self.with_obs and list(self.with_obs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.types = {name: (tuple(shape), np.dtype(kind)) for name, shape, kind in state["types"]}
        self.with_obs = None if state["with_obs"] is None else tuple(state["with_obs"])
        self.settled = True

    def fit(self, path: str, value: np.ndarray, copy: int) -> None:
        """Learn a field's shape and dtype, or check a value against them.

        Raises:
            InfoFault: If the value does not fit.
        """
        words = path.replace(IN, "/")
        if path not in self.types:
            if self.settled:
                if IN in path:
                    raise InfoFault(
                        f"returned `{path.split(IN)[0]}` in its info for the first time, and it is a dict: "
                        f"name the parts you want, as in env_info=[{words}]",
                        copy,
                    )
                if value.shape:
                    raise InfoFault(
                        f"returned `{words}` in its info for the first time, {type_in_words(value)}: a field "
                        "that is missing at first must be a single number. Return it from reset, or "
                        "from every step",
                        copy,
                    )
                # Nothing is known of later values, and float32 holds flags, counts and shares.
                value = value.astype(np.float32)
            self.types[path] = value.shape, value.dtype
            return
        shape, dtype = self.types[path]
        if value.shape != shape:
            raise InfoFault(
                f"returned `{words}` in its info {type_in_words(value)}, but {dtype} {list(shape)} before",
                copy,
            )
        if value.dtype == dtype or np.can_cast(value.dtype, dtype, "same_kind"):
            return
        if dtype.kind == "f":  # Integers and booleans among floats.
            return
        # Nothing is stored yet: an integer in reset may become a float in step.
        if not self.settled:
            self.types[path] = shape, np.promote_types(dtype, value.dtype)
            if self.types[path][1].kind == "f":
                self.types[path] = shape, np.dtype(np.float32)
        elif (value.astype(dtype) != value).any():
            raise InfoFault(
                f"returned `{words}` in its info {type_in_words(value)}, but {dtype} before. Use one dtype "
                "from the first reset on: 0.0 instead of 0",
                copy,
            )

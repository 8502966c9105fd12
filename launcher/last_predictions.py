"""Keeps what the pictures of a run's last evaluation need, while that evaluation is computed."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ..envs.held_out import HeldOut
from ..replay import Space, Spec
from ..replay.tree import leaves
from .learn.outputs import Outputs
from .pictures.predictions import (
    ClassPredictions,
    LabelPredictions,
    Predictions,
    ValuePredictions,
)


class LastPredictions:
    """Collects the predictions of the newest whole evaluation, in little memory.

    Args:
        told: Whether the scenario lets the model know the task.

    Attributes:
        found: What was collected; None: nothing yet.
    """

    def __init__(self, spec: Spec, *, told: bool):
        self.spec, self._told = spec, told
        self.found: Predictions | None = None

    def begin(self) -> None:
        """Forget earlier predictions: an evaluation begins."""
        self.found = None

    def __call__(self, found: Outputs, rows: HeldOut) -> None:
        """Collect the predictions of one task."""
        if self.found is None:
            self.found = _empty(self.spec)

        def images(places: np.ndarray) -> np.ndarray | None:
            return _images(self.spec, rows, found.index[places])

        output, label = found.as_scored(told=self._told).numpy(), found.label.numpy()
        self.found.add(output, label, images)


def _empty(spec: Spec) -> Predictions:
    action: Space = spec.action
    if action.kind == "values":
        return ValuePredictions(action.names)
    if action.kind == "labels":
        return LabelPredictions(action.n, action.names)
    ignored = action.ignored if action.kind == "pixels" else None
    return ClassPredictions(action.n, action.names, ignored)


def _images(spec: Spec, rows: HeldOut, index: Tensor) -> np.ndarray | None:
    """Rows as pictures, float32 `[k, H, W, 1 or 3]` in [0, 1]; None if they are not pictures."""
    (space, *others) = leaves(spec.obs)
    shape = space.shape
    if (
        others
        or len(shape) != 3
        or shape[0] not in (1, 3)
        or space.ids is not None
        or min(shape[1:]) < 4
    ):
        return None
    stored = rows.table.gather(index.to(rows.table.device))["obs"]
    pixels = stored.cpu().numpy().astype(np.float32)
    low, high = (float(np.min(np.asarray(end))) for end in (space.low, space.high))
    if not np.isfinite(high - low) or high <= low:
        low, high = float(pixels.min()), float(pixels.max())
    unit: np.ndarray = (pixels - low) / max(high - low, 1e-12)
    return np.nan_to_num(unit).clip(0, 1).transpose(0, 2, 3, 1)

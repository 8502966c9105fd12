"""Scores classes of pixels batch by batch: the outputs of all held-out images need not fit into memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...agents.supervised import pixel_cross_entropy
from ...replay import Space
from ..metrics import metrics_of


class PixelScores:
    """Counts of pixels and the loss of all images so far.

    The usual loss is the mean over all pixels that count. A loss that `loss=` names is averaged over batches,
    weighted by their number of images.

    Args:
        space: The space of the labels, with n classes.
        loss: What `loss=` names, or None.

    Attributes:
        counts: Pixels by class (row) and prediction (column), int64 `[n, n]`.
        images: How many there were.
    """

    def __init__(self, space: Space, loss: Callable[[Tensor, Tensor], float] | None = None):
        self.space, self.loss = space, loss
        self.images = 0
        self.counts = torch.zeros(space.n, space.n, dtype=torch.int64)
        self._loss, self._weight = 0.0, 0

    def add(self, output: Tensor, label: Tensor) -> None:
        """Count a batch.

        Args:
            output: Logits `[B, n, H, W]`.
            label: int64 `[B, H, W]`.
        """
        n = self.space.n
        counted = label != self.space.ignored
        pairs = label[counted] * n + output.argmax(1)[counted]
        counts = pairs.bincount(minlength=n * n).view(n, n)
        self.counts, self.images = self.counts + counts.cpu(), self.images + len(label)
        if self.loss is None:
            weight = int(counted.sum())
            value = float(pixel_cross_entropy(output.float(), label))
        else:
            weight, value = len(label), self.loss(output, label)
        self._loss, self._weight = self._loss + weight * value, self._weight + weight

    def metrics(self) -> dict[str, float]:
        """All metrics, by name."""
        found = {m.name: m.function(self.counts) for m in metrics_of("pixels")}
        return {**found, "loss": self._loss / max(1, self._weight)}

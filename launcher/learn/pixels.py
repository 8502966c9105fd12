"""Scores classes of pixels batch by batch: the outputs of all held-out images need not fit into memory."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ...agents.supervised import pixel_cross_entropy
from ...envs.held_out import HeldOut
from ...replay import Space
from ..metrics import metrics_of
from .learner import Learner
from .predicting import predicted


class PixelScores:
    """Counts of pixels and the loss of all images so far.

    The usual loss is the mean over all pixels that count. A loss that `loss=` names is averaged over batches,
    weighted by their number of images.

    Args:
        space: The space of the labels, with n classes.
        loss: What `loss=` names, or None.
    """

    def __init__(self, space: Space, loss: Callable[[Tensor, Tensor], float] | None = None):
        self.space, self.loss = space, loss
        self.counts: Tensor | None = None  # int64 [n, n]
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
        self.counts = counts if self.counts is None else self.counts + counts
        if self.loss is None:
            weight = int(counted.sum())
            value = float(pixel_cross_entropy(output.float(), label))
        else:
            weight, value = len(label), self.loss(output, label)
        self._loss, self._weight = self._loss + weight * value, self._weight + weight

    def metrics(self) -> dict[str, float]:
        """All metrics, by name."""
        assert self.counts is not None
        counts = self.counts.cpu()
        found = {m.name: m.function(counts) for m in metrics_of("pixels")}
        return {**found, "loss": self._loss / max(1, self._weight)}


def score_pixels(learner: Learner, rows: HeldOut) -> dict[str, float] | None:
    """The metrics of held-out images; None for a model that makes no predictions."""
    scores = PixelScores(learner.spec.action, learner.held_out_loss)
    for fields in rows:
        output = predicted(learner, fields["obs"], rows.task)
        if output is None:
            return None
        scores.add(output, fields["label"])
    return scores.metrics()

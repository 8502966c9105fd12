"""What is kept of a run's last predictions, in little memory, to draw them when it ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_MOST_CLASSES = 1000  # A matrix of more would be neither small nor legible.
_MOST_MISTAKES = 24
_MOST_POINTS = 4000
_MOST_COLUMNS = 6
_MOST_SCORES = 1_000_000

Images = Callable[[np.ndarray], np.ndarray | None]
"""Pictures float32 `[k, H, W, 1 or 3]` in [0, 1] of rows, by their places int64 `[k]`; None: no pictures."""


@dataclass(frozen=True)
class Mistake:
    """A wrong prediction.

    Attributes:
        confidence: Probability of the predicted class, in [0, 1].
        image: float32 `[H, W, 1 or 3]` in [0, 1].
    """

    label: int
    predicted: int
    confidence: float
    image: np.ndarray


class ClassPredictions:
    """Counts predicted classes against labels, and keeps the worst mistakes.

    Args:
        n: Number of classes.
        names: `[n]`, their names; None: their numbers.
        ignored: A label that is not counted, or None.

    Attributes:
        counts: int64 `[n, n]`, rows with label i that were predicted as j; None for more than 1,000 classes.
        support, predicted, hits: int64 `[n]`: rows of each class, rows predicted as it, and both.
        mistakes: The most confident wrong predictions, the worst first.
    """

    def __init__(self, n: int, names: Sequence[str] | None = None, ignored: int | None = None):
        self.n, self.ignored = n, ignored
        self.names = [str(i) for i in range(n)] if names is None else list(names)
        self.counts = np.zeros((n, n), np.int64) if n <= _MOST_CLASSES else None
        self.support, self.predicted, self.hits = (np.zeros(n, np.int64) for _ in range(3))
        self.mistakes: list[Mistake] = []
        self._scores: list[np.ndarray] = []  # Of two classes: the second one's probability.
        self._labels: list[np.ndarray] = []

    def add(self, output: np.ndarray, label: np.ndarray, images: Images) -> None:
        """Count the predictions of one task.

        Args:
            output: Logits float `[N, n, ...]`, or chosen classes int64 `[N]`.
            label: int64 `[N, ...]`.
        """
        chosen = output if output.ndim == 1 else output.argmax(1)
        if self.ignored is not None:
            counted = label != self.ignored
            chosen, label = chosen[counted], label[counted]
        n, right = self.n, chosen == label
        self.support += np.bincount(label, minlength=n)
        self.predicted += np.bincount(chosen, minlength=n)
        self.hits += np.bincount(label[right], minlength=n)
        if self.counts is not None:
            self.counts += np.bincount(label * n + chosen, minlength=n * n).reshape(n, n)
        if output.ndim != 2:
            return
        if n == 2 and sum(map(len, self._labels)) + len(label) <= _MOST_SCORES:
            self._scores.append(_probability(output, np.ones(len(output), np.int64)))
            self._labels.append(label)
        self._add_mistakes(output, label, chosen, images)

    def _add_mistakes(
        self, output: np.ndarray, label: np.ndarray, chosen: np.ndarray, images: Images
    ) -> None:
        wrong = np.flatnonzero(chosen != label)
        confidence = _probability(output[wrong], chosen[wrong])
        worst = np.argsort(-confidence, kind="stable")[:_MOST_MISTAKES]
        rows = wrong[worst]
        pictures = images(rows) if len(rows) else None
        if pictures is None:
            return
        found = zip(label[rows], chosen[rows], confidence[worst], pictures, strict=True)
        self.mistakes += [Mistake(int(a), int(b), float(c), image) for a, b, c, image in found]
        self.mistakes.sort(key=lambda mistake: -mistake.confidence)
        del self.mistakes[_MOST_MISTAKES:]

    @property
    def scores(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The second class's probabilities and the labels, `[N]` each; None unless there are two classes."""
        if not self._labels:
            return None
        return np.concatenate(self._scores), np.concatenate(self._labels)

    def table(self) -> list[dict[str, str | float | int]]:
        """Precision, recall, f1, IoU and support of each class; 0 where nothing was predicted or there.

        Source of the convention: scikit-learn's `classification_report` with `zero_division=0`.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.nan_to_num(self.hits / self.predicted)
            recall = np.nan_to_num(self.hits / self.support)
            f1 = np.nan_to_num(2 * self.hits / (self.support + self.predicted))
            iou = np.nan_to_num(self.hits / (self.support + self.predicted - self.hits))
        return [
            {
                "class": name,
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                **({} if self.ignored is None else {"iou": float(iou[i])}),
                "support": int(self.support[i]),
            }
            for i, name in enumerate(self.names)
        ]


class LabelPredictions:
    """Counts several labels at once.

    Args:
        n: Number of labels, K.
        names: `[K]`, their names; None: their numbers.
    """

    def __init__(self, n: int, names: Sequence[str] | None = None):
        self._classes = ClassPredictions(n, names)

    def add(self, output: np.ndarray, label: np.ndarray, images: Images) -> None:
        """Count logits float `[N, K]` and labels `[N, K]` of one task."""
        chosen, label = output > 0, label > 0
        self._classes.support += label.sum(0)
        self._classes.predicted += chosen.sum(0)
        self._classes.hits += (chosen & label).sum(0)

    def table(self) -> list[dict[str, str | float | int]]:
        """Precision, recall, f1 and support of each label."""
        return self._classes.table()


class ValuePredictions:
    """Keeps predicted values beside the true ones: at most 4,000 rows of the first 6 columns.

    Attributes:
        output, label: float64 `[N, k]`, of the columns that are kept.
        columns: How many columns there are.
        names: Names of the columns, or None.
    """

    def __init__(self, names: Sequence[str] | None = None):
        self.names = names
        self.columns = 0
        self.output, self.label = np.zeros((0, 1)), np.zeros((0, 1))

    def add(self, output: np.ndarray, label: np.ndarray, images: Images) -> None:
        """Keep rows of one task, evenly spread over them."""
        if not len(output):
            return
        output, label = (part.reshape(len(part), -1) for part in (output, label))
        self.columns = output.shape[1]
        kept = np.unique(np.linspace(0, len(output) - 1, _MOST_POINTS, dtype=np.int64))
        self.output = _joined(self.output, output[kept, :_MOST_COLUMNS])
        self.label = _joined(self.label, label[kept, :_MOST_COLUMNS])


Predictions = ClassPredictions | LabelPredictions | ValuePredictions


def _joined(before: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Both, float64 `[N, k]`, thinned to `_MOST_POINTS` rows."""
    rows = rows.astype(np.float64)
    joined = np.concatenate([before, rows]) if len(before) else rows
    return joined[:: math.ceil(len(joined) / _MOST_POINTS)]


def _probability(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Softmax probability of one class in each row, float64 `[N]`, of logits float `[N, n]`."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True, initial=-np.inf)
    weights = np.exp(shifted)
    chosen: np.ndarray = weights[np.arange(len(logits)), classes] / weights.sum(1)
    return chosen

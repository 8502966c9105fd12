"""`AntelopeClassifier`: a module that classifies, as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from .estimator import Estimator
from .sklearn import ClassifierMixin, check_classification_targets, check_is_fitted


class AntelopeClassifier(ClassifierMixin, Estimator):
    """Trains a module to classify: `AntelopeClassifier(epochs=20).fit(X, y).predict(X)`.

    A scikit-learn estimator: pipelines, `GridSearchCV`, `cross_val_score` and `clone` work. The module
    returns logits `[B, num_classes]`.
    """

    __doc__ += (Estimator.__doc__ or "").partition("\n")[2]

    def fit(self, X: Any, y: Any) -> Self:
        """Train on all rows.

        Args:
            X: `[N, F]` numbers, or `[N, ...]`, such as images `[N, C, H, W]`.
            y: `[N]` classes: numbers, words or truth values.

        Raises:
            ValueError: In scikit-learn's words for NaN, infinity or shapes that do not fit; a `ConfigError`
                for invalid parameters.
        """
        X, y = self._check(X, y, reset=True)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"AntelopeClassifier needs at least two classes, and y holds one class, {self.classes_[0]}."
            )
        self._train(X, numbers)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The class of each row, `[N]`, as `y` had it."""
        chosen = self._logits(X).argmax(1)
        classes: np.ndarray = self.classes_[chosen]
        return classes

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class, float64 `[N, n]`, in the order of `classes_`."""
        logits = self._logits(X)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        probabilities: np.ndarray = shares / shares.sum(1, keepdims=True)
        return probabilities

    def _logits(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return self._fitted.outputs(self._check(X, reset=False)).astype(np.float64)

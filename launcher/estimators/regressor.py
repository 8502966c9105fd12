"""`AntelopeRegressor`: a module that predicts values, as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from .estimator import Estimator
from .sklearn import RegressorMixin, Tags, check_is_fitted


class AntelopeRegressor(RegressorMixin, Estimator):
    """Trains a module to predict values: `AntelopeRegressor(epochs=50).fit(X, y).predict(X)`.

    A scikit-learn estimator: pipelines, `GridSearchCV`, `cross_val_score` and `clone` work. The module
    returns values `[B, K]`, in the units of `y`.
    """

    __doc__ += (Estimator.__doc__ or "").partition("\n")[2]

    def fit(self, X: Any, y: Any) -> Self:
        """Train on all rows.

        Args:
            X: `[N, F]` numbers, or `[N, ...]`, such as images `[N, C, H, W]`.
            y: `[N]` or `[N, K]` numbers.

        Raises:
            ValueError: In scikit-learn's words for NaN, infinity or shapes that do not fit; a `ConfigError`
                for invalid parameters.
        """
        X, y = self._check(X, y, reset=True)
        self._flat = y.ndim == 1
        # Columns of 0 and 1 would be read as labels: `loss=MSELoss` says that they are values.
        binary = not self._flat and bool(((y == 0) | (y == 1)).all())
        self._train(X, y.astype(np.float64), {"loss": "MSELoss"} if binary else {})
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The values of each row, float64 `[N]` or `[N, K]` as in `fit`."""
        check_is_fitted(self)
        values = self._fitted.outputs(self._check(X, reset=False)).astype(np.float64)
        return values[:, 0] if self._flat else values

    def _of_targets(self, reset: bool) -> dict[str, Any]:
        return {"multi_output": True, "y_numeric": True} if reset else {}

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

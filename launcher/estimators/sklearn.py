"""What the estimators need from scikit-learn; one clear error where it is not installed."""

from __future__ import annotations

from ...replay import ConfigError

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import Tags, check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ConfigError(
        "AntelopeClassifier and AntelopeRegressor need scikit-learn 1.6 or later: "
        "pip install 'antelope-ml[sklearn]'."
    ) from error

__all__ = [
    "BaseEstimator",
    "ClassifierMixin",
    "RegressorMixin",
    "Tags",
    "check_classification_targets",
    "check_is_fitted",
    "check_random_state",
    "validate_data",
]

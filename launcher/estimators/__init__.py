"""Estimators in the way of scikit-learn: `AntelopeClassifier`, `AntelopeRegressor`."""

from .classifier import AntelopeClassifier
from .regressor import AntelopeRegressor

__all__ = ["AntelopeClassifier", "AntelopeRegressor"]

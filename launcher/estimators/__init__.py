"""Estimators with scikit-learn's interface: `AntelopeClassifier`, `AntelopeRegressor`."""

from .classifier import AntelopeClassifier
from .regressor import AntelopeRegressor

__all__ = ["AntelopeClassifier", "AntelopeRegressor"]

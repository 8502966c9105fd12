"""scikit-learn's own checks of estimators: all that apply pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.utils.estimator_checks import parametrize_with_checks

from antelope import AntelopeClassifier, AntelopeRegressor

# `check_array_api_input` skips itself: X becomes a NumPy array.
NOT_APPLICABLE = {
    "check_methods_subset_invariance": "a row alone is rounded differently than in a batch (float32)",
}
QUICK: dict[str, Any] = {"epochs": 12, "lr": 3e-2, "batch_size": 64, "random_state": 0}


@parametrize_with_checks(
    [AntelopeClassifier(**QUICK), AntelopeRegressor(**QUICK)],
    expected_failed_checks=lambda _: NOT_APPLICABLE,
)
def test_scikit_learn_finds_an_estimator_of_its_own_kind(
    estimator: Any, check: Callable[[Any], None]
) -> None:
    check(estimator)
